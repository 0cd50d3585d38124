//! The resident shell: one POSIX `sh` on one channel of a session answers every due probe of an assembly in one round trip.
//! This file is the protocol: the program, the request lines, the answer lines. `exec.rs` is what serves where it cannot run.
//!
//! # Start
//! cpe opens a session channel and sends one exec request: [`command`], which is `exec /bin/sh -c 'MAIN' cpe-resident 'WORKER'`
//! with the text `cpe-resident 1` (the protocol's version) as the first words of MAIN. Nothing else is needed in the guest
//! but `sh`, `setsid` (util-linux, busybox), `dd`, `tail`, `sleep`, and `systemctl` for unit probes. No file is written.
//!
//! On the channel's standard input cpe then writes lines, each ended by LF. The first is the **nonce**: 16 lower-case
//! hexadecimal digits, drawn at random for this channel. It is sent as input and not as an argument, so that `ps` does not
//! show it. cpe does not wait before it sends requests: the nonce and the first batch are one write.
//! End of input ends the shell; what it still runs is ended by its watchdogs.
//!
//! # Requests
//! One line each; words are separated by one space. ID is a decimal number below 2^32, new for each line of a channel. SECS is a
//! decimal number of seconds, at least 1. All lines of one batch are one write, the `a` line first.
//!
//! | line | asks |
//! | --- | --- |
//! | `a ID` | are you alive? Answered at once by a builtin |
//! | `p ID NAME NAME ...` | does a process of each name run (`/proc/PID/comm`, not a zombie)? Answered by builtins, without a fork |
//! | `s ID SECS UNIT UNIT ...` | systemd's view of the units, by one `systemctl show` |
//! | `c ID SECS COMMAND` | run the rest of the line, as it is, by `/bin/sh -c` with empty input |
//!
//! # Answers
//! One line each: `NONCE SP BODY SP NONCE LF`. Bodies:
//!
//! | body | means |
//! | --- | --- |
//! | `r 1` | the shell is ready and speaks version 1. Comes once, before any other answer |
//! | `r 1 no-setsid` | it runs but cannot guard commands: cpe closes it and falls back to exec |
//! | `a ID` | alive |
//! | `p ID R R ...` | for each name in the order asked: `1` runs, `0` does not, `?` cannot be seen (`/proc` hides other users' processes) |
//! | `u ID WORD WORD WORD WORD` | four words of what `systemctl show` printed: `Id=`, `LoadState=`, `ActiveState=`, `SubState=`; as many such lines as needed |
//! | `s ID STATUS WORD ...` | `systemctl` ended with that exit status; the words that remained. After the `u` lines of this ID |
//! | `c ID STATUS TEXT` | the command ended with that exit status (128 + N after signal N). TEXT is the start and, where it was longer, the end of its output, at most 512 bytes, newlines as spaces |
//! | `t ID` | an `s` or `c` did not end within SECS and was ended by force, with its whole process group |
//!
//! Answers to different IDs come in any order. Units are matched with what was asked by their order, since an alias is shown by
//! its real name. Before the `r` line anything may come (a login shell's own words): lines that do not open with the nonce are
//! dropped, up to 16 KiB. After it every line must be a valid answer; anything else is bad framing, and cpe falls back to exec.
//!
//! # Why output cannot forge an answer
//! What a command prints is never connected to the channel. It is captured through a pipe, cut, newlines are replaced, and it is then
//! printed by the shell as the last part of one line, between two nonces which the command was never told. A line is one `write` of
//! less than 1 KiB, so two answers never mix. The exit status is written by the worker behind the output, and the worker prints nothing
//! unless the command ended by itself: one that prints a status and then hangs is still `t`.
//!
//! # Watchdog
//! Each `s` and `c` runs in a process group of its own (`setsid`) beside a `sleep SECS`, after which the whole group is killed with
//! SIGKILL, as it is when the probe ends by itself. So nothing that a probe started in its group outlives it, a hanging probe delays no
//! other, and the shell itself never waits for any. A command's background child that keeps the output open counts as still running.
//! Workers are orphans on purpose (a double fork): init reaps them, so the shell has no zombies.

use std::fmt::Write as _;

/// The protocol's version, as the shell says it.
pub const VERSION: &str = "1";

/// The longest line that may come, in bytes: far above any valid answer.
pub const LINE_MAX_BYTES: usize = 4096;

/// What may come before the shell is ready, in bytes.
pub const PREAMBLE_MAX_BYTES: usize = 16 * 1024;

/// Reads requests, answers what builtins can answer, and hands the rest to a worker. No single quote may occur in it.
const MAIN: &str = r#": cpe-resident 1; exec 2>/dev/null; w=$1; IFS= read -r n || exit 0; nl=$(printf "\n_"); nl=${nl%_};
say() { printf "%s %s %s\n" "$n" "$1" "$n"; };
report() { case $o in *"$nl"*) ;; *) say "t $i"; return;; esac; x=${o##*$nl}; o=${o%$nl*};
case $k in c) while :; do case $o in *"$nl"*) o=${o%%$nl*}" "${o#*$nl};; *) break;; esac; done; say "c $i $x $o";;
s) set -f; set -- $o; while [ $# -gt 3 ]; do say "u $i $1 $2 $3 $4"; shift 4; done; say "s $i $x $*";; esac; };
job() { ( { o=$(exec setsid /bin/sh -c "$w" cpe-probe "$@"); report; } </dev/null & ); };
procs() { f=" "; for d in /proc/[0-9]*; do c=; read -r c <"$d/comm"; case $c in ""|*" "*) continue;; esac;
case " $* " in *" $c "*) ;; *) continue;; esac; case $f in *" $c "*) continue;; esac;
z=; read -r z <"$d/stat"; case ${z##*") "} in ""|[ZX]*) ;; *) f="$f$c ";; esac; done;
h=0; c=; read -r c </proc/1/comm; case $c in "") h="?";; esac;
r=; for c in "$@"; do case $f in *" $c "*) r="$r 1";; *) r="$r $h";; esac; done; say "p $i$r"; };
if command -v setsid >/dev/null; then say "r 1"; else say "r 1 no-setsid"; fi;
while IFS= read -r l; do k=${l%% *}; l=${l#* }; i=${l%% *}; l=${l#* };
case $k in a) say "a $i";; p) procs $l;; s) job s $l;; c) job c "${l%% *}" "${l#* }";; esac; done"#;

/// Runs one `s` or `c` in its own process group, prints its output and, behind it, its status. No single quote may occur in it.
const WORKER: &str = r#"k=$1; t=$2; shift 2;
( sleep "$t" & trap "kill -KILL $!; wait; exit" TERM; wait; kill -KILL 0 ) >/dev/null & d=$!;
case $k in
c) o=$( { /bin/sh -c "$1" 2>&1 </dev/null; printf "\n%s" "$?"; } | { dd bs=256 count=1 2>/dev/null; tail -c 256; } );;
s) o=$(systemctl show --property=Id,LoadState,ActiveState,SubState -- "$@" 2>&1 </dev/null; printf "\n%s" "$?");; esac;
printf "%s" "$o"; kill -TERM "$d"; wait "$d"; kill -KILL 0"#;

/// The exec request that starts the resident shell. Newlines are made spaces, so that any login shell takes it as one line.
#[must_use]
pub fn command() -> String {
    let mut text = String::with_capacity(MAIN.len() + WORKER.len() + 64);
    let _infallible = write!(text, "exec /bin/sh -c '{MAIN}' cpe-resident '{WORKER}'");
    text.replace('\n', " ")
}
