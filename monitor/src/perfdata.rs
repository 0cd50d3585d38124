//! What monitoring plugins print, read as the Monitoring Plugins' guidelines have it: one line for a person, and performance data
//! behind a `|`, as `'label'=value[UOM];warn;crit;min;max`. What is written so is measured; anything else is left out and counted.

/// The most figures of one plugin.
pub const MEASURES_MAX: usize = 32;

/// The longest label, in bytes.
pub const LABEL_MAX_BYTES: usize = 64;

/// The longest unit, in bytes.
const UNIT_MAX_BYTES: usize = 8;

/// What a plugin printed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Printed {
    /// Its first line, without performance data.
    pub line: String,
    /// Its figures, in its order, each label once.
    pub measures: Vec<Measure>,
    /// Figures that cannot be read, or are too many.
    pub dropped: u32,
}

/// One figure of a plugin. Its thresholds are the plugin's own matter.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// What is measured, without quotes; never empty.
    pub label: String,
    /// The figure, in the plugin's unit.
    pub value: f64,
    /// `s`, `ms`, `%`, `B`, `MB`, `c` (a counter), ...; empty for a mere number.
    pub unit: String,
}

/// Reads a plugin's output. `cut` says that its end is missing: then the last figure may be a part of one, and is left out.
///
/// The first line is `TEXT|PERFDATA`; further lines are text for a person up to a `|`, and performance data from there to the end.
#[must_use]
pub fn read(output: &str, cut: bool) -> Printed {
    let (first, more) = output.trim_start().split_once('\n').unwrap_or((output.trim_start(), ""));
    let (line, data) = first.split_once('|').unwrap_or((first, ""));
    let later = more.split_once('|').map_or("", |(_, later)| later);
    let mut printed = Printed { line: line.trim().to_owned(), ..Printed::default() };
    let whole = if cut { without_last(data, later) } else { (data, later) };
    let mut rest = format!("{} {}", whole.0, whole.1);
    // Lines that follow the second `|` are performance data as well.
    rest = rest.replace(['\n', '\r', '\t'], " ");
    let mut rest = rest.trim_start();
    while !rest.is_empty() {
        let (figure, after) = next(rest);
        rest = after.trim_start();
        match figure {
            Figure::Read(measure)
                if printed.measures.len() < MEASURES_MAX
                    && printed.measures.iter().all(|known| known.label != measure.label) =>
            {
                printed.measures.push(measure);
            }
            // `U` is the guidelines' own word for "could not be measured".
            Figure::Unknown => {}
            Figure::Read(_) | Figure::Bad => printed.dropped = printed.dropped.saturating_add(1),
        }
    }
    printed
}

/// Both parts without the last word of all.
fn without_last<'t>(data: &'t str, later: &'t str) -> (&'t str, &'t str) {
    let before = |text: &'t str| text.rsplit_once(char::is_whitespace).map_or("", |(before, _)| before);
    if later.is_empty() { (before(data), later) } else { (data, before(later)) }
}

enum Figure {
    Read(Measure),
    Unknown,
    Bad,
}

/// The first figure of a text, and what follows it.
fn next(text: &str) -> (Figure, &str) {
    let Some((label, rest)) = label(text) else {
        // Nothing of it can be a figure: on to the next word.
        return (Figure::Bad, text.split_once(' ').map_or("", |(_, rest)| rest));
    };
    let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let value = word.split(';').next().unwrap_or_default();
    if value == "U" {
        return (Figure::Unknown, rest);
    }
    let end = value.find(|it: char| !it.is_ascii_digit() && !"+-.,eE".contains(it)).unwrap_or(value.len());
    // `1e5` is a number, `1E` is one exabyte and no number.
    let (number, unit) = match value[..end].trim_end_matches(['e', 'E', '+', '-']).len() {
        shorter if shorter < end => value.split_at(shorter),
        _ => value.split_at(end),
    };
    // A plugin in another locale writes a comma.
    let number = number.replacen(',', ".", 1).parse::<f64>().ok().filter(|number| number.is_finite());
    let plain =
        unit.len() <= UNIT_MAX_BYTES && unit.chars().all(|it| it.is_alphabetic() || it == '%' || it == '/');
    let label: String = label.chars().filter(|it| !it.is_control()).collect();
    match number {
        Some(value) if plain && !label.is_empty() && label.len() <= LABEL_MAX_BYTES => {
            (Figure::Read(Measure { label, value, unit: unit.to_owned() }), rest)
        }
        _ => (Figure::Bad, rest),
    }
}

/// A label, without its quotes, and what follows its `=`. In quotes it may hold spaces, and two quotes for one.
fn label(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('\'') else {
        let (label, rest) = text.split_once('=')?;
        return (!label.contains(' ')).then(|| (label.to_owned(), rest));
    };
    let (mut label, mut rest) = (String::new(), quoted);
    loop {
        let (part, after) = rest.split_once('\'')?;
        label.push_str(part);
        if let Some(after) = after.strip_prefix('\'') {
            label.push('\'');
            rest = after;
            continue;
        }
        return Some((label, after.strip_prefix('=')?));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(output: &str) -> Vec<(String, f64, String)> {
        let printed = read(output, false);
        printed.measures.into_iter().map(|it| (it.label, it.value, it.unit)).collect()
    }

    fn figure(label: &str, value: f64, unit: &str) -> (String, f64, String) {
        (label.to_owned(), value, unit.to_owned())
    }

    #[test]
    fn a_label_of_which_nothing_can_be_shown_is_none() {
        let printed = read("x|\u{14}=3 a\u{14}b=4", false);
        assert_eq!((printed.measures.len(), printed.dropped), (1, 1), "{printed:?}");
        assert_eq!(figures("x|\u{14}=3 a\u{14}b=4"), [figure("ab", 4.0, "")]);
    }

    #[test]
    fn figures_are_read_as_the_guidelines_have_them() {
        let one = "DISK OK - free space: / 3326 MB (56%); | /=2643MB;5948;5958;0;5968";
        assert_eq!(figures(one), [figure("/", 2643.0, "MB")]);
        assert_eq!(read(one, false).line, "DISK OK - free space: / 3326 MB (56%);");
        let more = "LOAD OK|load1=0.03;5;4;0; load5=-1.5e3;;;; 'a b'=12% 'it''s'=7c time=0,25s x=U\n";
        let expected = [
            figure("load1", 0.03, ""),
            figure("load5", -1500.0, ""),
            figure("a b", 12.0, "%"),
            figure("it's", 7.0, "c"),
            figure("time", 0.25, "s"),
        ];
        assert_eq!(figures(more), expected);
    }

    #[test]
    fn figures_of_later_lines_follow_a_second_bar() {
        let output =
            "DISK OK | /=1MB\nfirst line of more\nsecond | /boot=68MB;88\n/home=69357MB\n/var/log=819MB\n";
        let labels: Vec<String> = figures(output).into_iter().map(|it| it.0).collect();
        assert_eq!(labels, ["/", "/boot", "/home", "/var/log"]);
    }

    #[test]
    fn what_is_no_figure_is_left_out_and_counted() {
        let printed = read("OK | good=1 nonsense bad=x =3 a=1 a=2 'open=4", false);
        let labels: Vec<&str> = printed.measures.iter().map(|it| it.label.as_str()).collect();
        assert_eq!((labels, printed.dropped), (vec!["good", "a"], 5));
        let long = format!("OK | {}=1", "x".repeat(LABEL_MAX_BYTES + 1));
        assert_eq!((read(&long, false).measures.len(), read(&long, false).dropped), (0, 1));
        let many: String = (0..100).map(|number| format!("a{number}=1 ")).collect();
        let printed = read(&format!("OK | {many}"), false);
        assert_eq!((printed.measures.len(), printed.dropped), (MEASURES_MAX, 68));
    }

    #[test]
    fn of_an_output_that_was_cut_the_last_figure_is_not_believed() {
        assert_eq!(read("OK | a=1 b=12", true).measures.len(), 1);
        assert_eq!(read("OK | a=1", true).measures.len(), 0);
        assert_eq!(read("OK - no figures", true).line, "OK - no figures");
    }

    #[test]
    fn nothing_that_a_plugin_prints_breaks_the_reader() {
        for output in
            ["", "|", "||||", "\n|", "'", "|'", "|'='=", "|=", "|''=1", "|é=1é|", "| a=\u{0}1", "|a=1e999"]
        {
            for cut in [false, true] {
                let printed = read(output, cut);
                assert!(
                    printed.measures.iter().all(|it| it.value.is_finite() && !it.label.is_empty()),
                    "{output:?}"
                );
            }
        }
    }
}
