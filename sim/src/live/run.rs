//! The task of one machine: it keeps the port in line with the machine's state, accepts connections, and lets happen what is due
//! by itself (a boot that ends, a unit that dies).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::connection::{Connection, Stream};
use super::keys::ClientKey;
use super::machine::Machine;
use super::port::Port;
use super::session::Session;

/// After an error of the network's functions (no file descriptor left, the port taken by somebody) it is tried again this much later.
const RETRY: Duration = Duration::from_millis(50);

/// Runs until it is aborted.
pub(super) async fn run(machine: Arc<Machine>, mut port: Port, client_key: Arc<ClientKey>) {
    loop {
        let plan = machine.settle(Instant::now());
        if port.turn(plan.link).await.is_err() {
            tokio::time::sleep(RETRY).await;
            continue;
        }
        machine.applied.send_replace(plan.version);
        let due = async {
            match plan.next {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = machine.changed.notified() => {}
            () = due => {}
            accepted = port.accept() => match accepted {
                Ok(tcp) => accept(&machine, tcp, &client_key),
                Err(_) => tokio::time::sleep(RETRY).await,
            },
        }
    }
}

fn accept(machine: &Arc<Machine>, tcp: TcpStream, client_key: &Arc<ClientKey>) {
    let connection = Connection::new(tcp, Arc::clone(&machine.gate));
    if !machine.admit(&connection) {
        return;
    }
    machine.counters.connections.add(1);
    let config = Arc::clone(&machine.lock().host_key.config);
    let session = Session::new(Arc::clone(machine), Arc::clone(client_key));
    tokio::spawn(async move {
        // How a session ends is of no interest to a machine; what it did was counted and told.
        if let Ok(running) = russh::server::run_stream(config, Stream(connection), session).await {
            let _ = running.await;
        }
    });
}
