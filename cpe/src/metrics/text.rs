//! From OpenMetrics, which the library writes, to Prometheus's text format 0.0.4, which everything reads: a counter's family has the
//! name of its samples, and there is no `# UNIT` and no `# EOF`. Samples are sorted, so that two scrapes can be compared by eye.

/// The media type of what [`prometheus`] makes.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One family: its two lines of explanation and its samples.
#[derive(Default)]
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    kind: &'a str,
    samples: Vec<&'a str>,
}

/// Rewrites an OpenMetrics text.
pub(super) fn prometheus(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len() + 512);
    let mut family = Family::default();
    for line in openmetrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            family.samples.push(line);
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("HELP"), Some(name), help) => {
                std::mem::take(&mut family).write(&mut out);
                family = Family { name, help: help.unwrap_or_default(), ..Family::default() };
            }
            (Some("TYPE"), Some(name), Some(kind)) if name == family.name => family.kind = kind,
            _ => {}
        }
    }
    family.write(&mut out);
    out
}

impl Family<'_> {
    fn write(mut self, out: &mut String) {
        // A family that nobody has counted in yet explains nothing.
        if self.samples.is_empty() {
            return;
        }
        let suffix = if self.kind == "counter" { "_total" } else { "" };
        let Self { name, help, kind, .. } = self;
        out.push_str(&format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n"));
        // The buckets of a histogram are in order already, and by number, not by letter.
        if kind != "histogram" {
            self.samples.sort_unstable();
        }
        for sample in self.samples {
            out.push_str(sample);
            out.push('\n');
        }
    }
}
