//! The resident shell: one POSIX `sh` on one channel of a session answers every due probe of an assembly in one round trip.
//! This file is the protocol: the program, the request lines, the answer lines. `exec.rs` is what serves where it cannot run.
//!
//! # Start
//! cpe opens a session channel and sends one exec request: [`command`], which is `exec /bin/sh -c 'MAIN' cpe-resident 'WORKER'`
//! with the text `cpe-resident 1` (the protocol's version) as the first words of MAIN. Nothing else is needed in the guest
//! but `sh`, `setsid` (util-linux, busybox), `tail`, `sleep`, and `systemctl` for unit probes. No file is written.
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
//! | `n ID SECS COMMAND` | the same for a monitoring plugin, of whose output more is wanted |
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
//! | `c ID STATUS TEXT` | the command ended with that exit status (128 + N after signal N). TEXT is the first 400 characters of its output, newlines as spaces; of an output longer than 4 KiB, the first of its last 4 KiB |
//! | `n ID STATUS TEXT` | the same of a plugin: the first 900 characters, newlines as the character 31 (US) |
//! | `t ID` | an `s`, `c` or `n` did not end within SECS and was ended by force, with its whole process group |
//!
//! Answers to different IDs come in any order. Units are matched with what was asked by their order, since an alias is shown by
//! its real name. Before the `r` line anything may come (a login shell's own words): lines that do not open with the nonce are
//! dropped, up to 16 KiB. After it every line must be a valid answer; anything else is bad framing, and cpe falls back to exec.
//!
//! # Why output cannot forge an answer
//! What a command prints is never connected to the channel. It is captured through a pipe, cut, newlines are replaced, and it is then
//! printed by the shell as the last part of one line, between two nonces which the command was never told. A line is one `write` of
//! less than 2 KiB, so two answers never mix. The exit status is written by the worker behind the output, and `tail` gives nothing on
//! until everything that could write has ended: a command that prints a status and then hangs is killed together with `tail`,
//! and is `t`.
//!
//! # Watchdog
//! Each `s`, `c` and `n` runs in a process group of its own (`setsid`) beside a `sleep SECS`, after which the whole group is killed with
//! SIGKILL, as it is when the probe ends by itself. So nothing that a probe started in its group outlives it, a hanging probe delays no
//! other, and the shell itself never waits for any. A command's background child that keeps the output open counts as still running.
//! Workers are orphans on purpose (a double fork): init reaps them, so the shell has no zombies.

use std::fmt::Write as _;

/// The protocol's version, as the shell says it.
pub const VERSION: &str = "1";

/// The longest line that may come, in bytes: far above any valid answer.
pub const LINE_MAX_BYTES: usize = 4096;

/// How much of a plugin's output is said, in characters.
pub(crate) const PLUGIN_CHARACTERS: usize = 900;

/// What may come before the shell is ready, in bytes.
pub const PREAMBLE_MAX_BYTES: usize = 16 * 1024;

/// Reads requests, answers what builtins can answer, and hands the rest to a worker. No single quote may occur in it.
const MAIN: &str = r#": cpe-resident 1; exec 2>/dev/null; w=$1; IFS= read -r n || exit 0; nl=$(printf "\n\037"); us=${nl#?}; nl=${nl%?};
say() { printf "%s %s %s\n" "$n" "$1" "$n"; };
report() { x=${o##*$nl}; case $x in ""|*[!0-9]*) say "t $i"; return;; esac; o=${o%$nl*}; r=;
case $k in [cn]) z=" " m=400; [ $k = c ] || z=$us m=900;
while [ ${#r} -lt $m ]; do case $o in *"$nl"*) r="$r${o%%$nl*}$z"; o=${o#*$nl};; *) r=$r$o; break;; esac; done;
printf "%s %s %s %s %.${m}s %s\n" "$n" "$k" "$i" "$x" "$r" "$n";;
s) set -f; set -- $o; while [ $# -gt 3 ]; do say "u $i $1 $2 $3 $4"; shift 4; done; say "s $i $x $*";; esac; };
job() { ( { o=$(exec setsid /bin/sh -c "$w" cpe-probe "$@"); report; } </dev/null & ); };
procs() { f=" "; for d in /proc/[0-9]*; do c=; read -r c <"$d/comm"; case $c in ""|*" "*) continue;; esac;
case " $* " in *" $c "*) ;; *) continue;; esac; case $f in *" $c "*) continue;; esac;
z=; read -r z <"$d/stat"; case ${z##*") "} in ""|[ZX]*) ;; *) f="$f$c ";; esac; done;
h=0; c=; read -r c </proc/1/comm; case $c in "") h="?";; esac;
r=; for c in "$@"; do case $f in *" $c "*) r="$r 1";; *) r="$r $h";; esac; done; say "p $i$r"; };
if command -v setsid >/dev/null; then say "r 1"; else say "r 1 no-setsid"; fi;
while IFS= read -r l; do k=${l%% *}; l=${l#* }; i=${l%% *}; l=${l#* };
case $k in a) say "a $i";; p) procs $l;; s) job s $l;; [cn]) job $k "${l%% *}" "${l#* }";; esac; done"#;

/// Runs one `s`, `c` or `n` in its own process group: the end of its output and, behind it, its status. No single quote may occur in it.
const WORKER: &str = r#"k=$1; t=$2; shift 2;
( sleep "$t" & trap "kill -KILL $!; wait; exit" TERM; wait; kill -KILL 0 ) >/dev/null & d=$!;
case $k in [cn]) { /bin/sh -c "$1" 2>&1 </dev/null; printf "\n%s" "$?"; } | tail -c 4096;;
s) systemctl show --property=Id,LoadState,ActiveState,SubState -- "$@" 2>&1 </dev/null; printf "\n%s" "$?";; esac;
kill -TERM "$d"; wait "$d"; kill -KILL 0"#;

/// The exec request that starts the resident shell. Newlines are made spaces, so that any login shell takes it as one line.
#[must_use]
pub fn command() -> String {
    let mut text = String::with_capacity(MAIN.len() + WORKER.len() + 64);
    let _infallible = write!(text, "exec /bin/sh -c '{MAIN}' cpe-resident '{WORKER}'");
    text.replace('\n', " ")
}

/// One answer line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Ready,
    Alive(u32),
    /// For each name asked: whether it runs; `None` where that cannot be seen.
    Processes(u32, Vec<Option<bool>>),
    /// Words that `systemctl` printed.
    Words(u32, String),
    /// `systemctl` ended; its last words.
    Units(u32, i32, String),
    /// A command ended.
    Ended(u32, i32, String),
    /// A plugin ended.
    Plugin(u32, i32, String),
    /// The watchdog ended it.
    Killed(u32),
}

/// What came is not an answer. The text says what is wrong with it; it holds nothing of what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the resident shell's answers cannot be understood: {0}")]
pub(crate) struct BadFrame(pub(crate) &'static str);

const TOO_LONG: BadFrame = BadFrame("a line is too long");

/// Cuts what comes from the shell into answers.
pub(crate) struct Reader {
    nonce: String,
    rest: Vec<u8>,
    preamble: usize,
    ready: bool,
}

impl Reader {
    pub(crate) fn new(nonce: String) -> Self {
        Self { nonce, rest: Vec::new(), preamble: 0, ready: false }
    }

    /// Whether the shell has said that it is ready.
    pub(crate) fn ready(&self) -> bool {
        self.ready
    }

    /// Takes what came and gives the answers that are whole now.
    ///
    /// # Errors
    /// [`BadFrame`]: then nothing more can be believed of this channel.
    pub(crate) fn push(&mut self, mut data: &[u8]) -> Result<Vec<Reply>, BadFrame> {
        let mut replies = Vec::new();
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            let (line, after) = data.split_at(end);
            data = after.get(1..).unwrap_or_default();
            if self.rest.is_empty() {
                self.line(line, &mut replies)?;
                continue;
            }
            let mut whole = std::mem::take(&mut self.rest);
            whole.extend_from_slice(line);
            self.line(&whole, &mut replies)?;
        }
        self.rest.extend_from_slice(data);
        if self.rest.len() > self.longest() {
            return Err(TOO_LONG);
        }
        Ok(replies)
    }

    fn longest(&self) -> usize {
        if self.ready { LINE_MAX_BYTES } else { PREAMBLE_MAX_BYTES }
    }

    fn line(&mut self, line: &[u8], replies: &mut Vec<Reply>) -> Result<(), BadFrame> {
        // Also of one that came whole: what is understood does not depend on how it came.
        if line.len() > self.longest() {
            return Err(TOO_LONG);
        }
        let text = String::from_utf8_lossy(line);
        if self.ready {
            let body = text
                .strip_prefix(self.nonce.as_str())
                .and_then(|text| text.strip_suffix(self.nonce.as_str()));
            let body = body.and_then(|body| body.strip_prefix(' ')?.strip_suffix(' '));
            replies.push(body.ok_or(BadFrame("a line is not between two nonces")).and_then(parse)?);
            return Ok(());
        }
        // A login shell may have written before it, and without a newline at its end.
        let said = text.strip_suffix(self.nonce.as_str()).and_then(|text| text.strip_suffix(' '));
        let said = said.and_then(|text| text.rsplit_once(self.nonce.as_str()));
        let Some((_, said)) = said else {
            self.preamble += line.len() + 1;
            if self.preamble > PREAMBLE_MAX_BYTES {
                return Err(BadFrame("too much came before it was ready"));
            }
            return Ok(());
        };
        match said.strip_prefix(" r ") {
            Some(VERSION) => {
                self.ready = true;
                replies.push(Reply::Ready);
                Ok(())
            }
            Some("1 no-setsid") => Err(BadFrame("the guest has no setsid, so commands cannot be guarded")),
            _ => Err(BadFrame("another version answers")),
        }
    }
}

fn parse(body: &str) -> Result<Reply, BadFrame> {
    const BAD: BadFrame = BadFrame("an answer of no known kind");
    let (kind, rest) = body.split_once(' ').ok_or(BAD)?;
    let (id, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let id: u32 = id.parse().map_err(|_| BAD)?;
    let status = || {
        let (status, text) = rest.split_once(' ').unwrap_or((rest, ""));
        status.parse::<i32>().map(|status| (status, text.to_owned())).map_err(|_| BAD)
    };
    match kind {
        "a" if rest.is_empty() => Ok(Reply::Alive(id)),
        "t" if rest.is_empty() => Ok(Reply::Killed(id)),
        "u" => Ok(Reply::Words(id, rest.to_owned())),
        "s" => status().map(|(status, text)| Reply::Units(id, status, text)),
        "c" => status().map(|(status, text)| Reply::Ended(id, status, text)),
        "n" => status().map(|(status, text)| Reply::Plugin(id, status, text)),
        "p" => {
            let seen = rest.split(' ').map(|word| match word {
                "1" => Ok(Some(true)),
                "0" => Ok(Some(false)),
                "?" => Ok(None),
                _ => Err(BAD),
            });
            seen.collect::<Result<_, _>>().map(|seen| Reply::Processes(id, seen))
        }
        _ => Err(BAD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "0123456789abcdef";

    fn ready() -> Reader {
        let mut reader = Reader::new(NONCE.to_owned());
        assert_eq!(reader.push(format!("{NONCE} r 1 {NONCE}\n").as_bytes()), Ok(vec![Reply::Ready]));
        reader
    }

    fn read(body: &str) -> Result<Vec<Reply>, BadFrame> {
        ready().push(format!("{NONCE} {body} {NONCE}\n").as_bytes())
    }

    #[test]
    fn the_program_survives_being_one_quoted_line() {
        assert!(!MAIN.contains('\''));
        assert!(!WORKER.contains('\''));
        let command = command();
        assert!(command.starts_with("exec /bin/sh -c ': cpe-resident 1;"), "what a fake shell looks for");
        assert!(!command.contains('\n'));
        assert!(command.len() < 4096, "{}", command.len());
    }

    #[test]
    fn the_forced_commands_copy_is_this_program() {
        let script = include_str!("../../../packaging/cpe-guest");
        for part in [format!("main='{MAIN}'\n"), format!("worker='{WORKER}'\n")] {
            assert!(script.contains(&part), "packaging/cpe-guest needs:\n{part}");
        }
        assert!(command().starts_with(&format!("exec /bin/sh -c ': cpe-resident {VERSION};")));
        assert!(script.contains(&format!("\"exec /bin/sh -c ': cpe-resident {VERSION};\"*)")));
    }

    #[test]
    fn each_answer_is_read() {
        let words = "Id=a.service LoadState=loaded ActiveState=active SubState=running";
        for (body, reply) in [
            ("a 7", Reply::Alive(7)),
            ("p 8 1 0 ?", Reply::Processes(8, vec![Some(true), Some(false), None])),
            (&format!("u 9 {words}"), Reply::Words(9, words.to_owned())),
            ("s 9 0 ", Reply::Units(9, 0, String::new())),
            ("c 10 3 two  words ", Reply::Ended(10, 3, "two  words ".to_owned())),
            ("c 10 0 ", Reply::Ended(10, 0, String::new())),
            ("n 12 1 a\u{1f}b ", Reply::Plugin(12, 1, "a\u{1f}b ".to_owned())),
            ("t 11", Reply::Killed(11)),
        ] {
            assert_eq!(read(body), Ok(vec![reply]), "{body}");
        }
    }

    #[test]
    fn answers_are_read_however_the_bytes_are_cut() {
        let text = format!("{NONCE} a 1 {NONCE}\n{NONCE} c 2 0 x {NONCE}\n");
        for cut in 0..text.len() {
            let mut reader = ready();
            let mut replies = reader.push(&text.as_bytes()[..cut]).unwrap();
            replies.extend(reader.push(&text.as_bytes()[cut..]).unwrap());
            assert_eq!(replies, vec![Reply::Alive(1), Reply::Ended(2, 0, "x".to_owned())], "cut at {cut}");
        }
    }

    #[test]
    fn a_line_without_both_nonces_is_never_believed() {
        for line in [
            "a 1".to_owned(),
            format!("{NONCE} a 1"),
            format!("a 1 {NONCE}"),
            format!("{NONCE}a 1{NONCE}"),
            format!("fedcba9876543210 a 1 {NONCE}"),
            format!("{NONCE} a 1 {NONCE} "),
            NONCE.to_owned(),
            String::new(),
        ] {
            assert!(ready().push(format!("{line}\n").as_bytes()).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_body_of_no_known_kind_is_never_believed() {
        for body in
            ["", "a", "a x", "a 1 2", "z 1", "p 1", "p 1 2", "c 1 x", "s 1", "a 4294967296", "a -1", "r 1"]
        {
            assert!(read(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn an_endless_line_is_given_up() {
        assert!(ready().push(&[b'x'; LINE_MAX_BYTES + 1]).is_err());
        assert!(Reader::new(NONCE.to_owned()).push(&[b'x'; PREAMBLE_MAX_BYTES + 1]).is_err());
        assert!(Reader::new(NONCE.to_owned()).push(&[b'\n'; PREAMBLE_MAX_BYTES + 1]).is_err());
    }

    #[test]
    fn what_a_login_shell_says_first_is_passed_over() {
        let mut reader = Reader::new(NONCE.to_owned());
        let text = format!("Welcome!\n{NONCE}\nno newline{NONCE} r 1 {NONCE}\n{NONCE} a 1 {NONCE}\n");
        assert_eq!(reader.push(text.as_bytes()), Ok(vec![Reply::Ready, Reply::Alive(1)]));
    }

    #[test]
    fn a_shell_that_cannot_guard_commands_is_not_used() {
        let mut reader = Reader::new(NONCE.to_owned());
        assert!(reader.push(format!("{NONCE} r 1 no-setsid {NONCE}\n").as_bytes()).is_err());
    }
}
