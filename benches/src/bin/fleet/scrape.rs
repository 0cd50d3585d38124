//! One reading of Prometheus metrics in the text format: `name{labels} value` lines.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

const TIMEOUT: Duration = Duration::from_secs(5);

/// All series and their values.
#[derive(Debug)]
pub(crate) struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Reads `http://ADDRESS/metrics`.
    pub(crate) fn of(address: SocketAddr) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the metrics are no HTTP answer")?;
        anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "the metrics answer {head:?}");
        Ok(Self::parse(body))
    }

    fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            series
                .filter_map(|line| {
                    let (name, value) = line.rsplit_once(' ')?;
                    Some((name.to_owned(), value.parse().ok()?))
                })
                .collect(),
        )
    }

    /// The value of one series; 0 where there is none.
    pub(crate) fn value(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or_default()
    }

    /// The sum over all label values of a metric.
    pub(crate) fn sum(&self, metric: &str) -> f64 {
        self.of_metric(metric).map(|(_, value)| value).sum()
    }

    /// Probes that passed.
    pub(crate) fn passed(&self) -> f64 {
        let passed =
            self.of_metric("cpe_probes_total").filter(|(series, _)| series.contains("outcome=\"passed\""));
        passed.map(|(_, value)| value).sum()
    }

    /// The upper bound of the bucket in which that share of a histogram's values since `before` lies; none: above the last.
    pub(crate) fn quantile_since(&self, before: &Self, metric: &str, share: f64) -> Option<f64> {
        let name = format!("{metric}_bucket");
        let mut buckets: Vec<(f64, f64)> = self
            .of_metric(&name)
            .filter_map(|(series, value)| {
                let bound = series.split("le=\"").nth(1)?.split('"').next()?.replace("+Inf", "inf");
                Some((bound.parse().ok()?, value - before.value(series)))
            })
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        let all = buckets.last()?.1;
        let (bound, _) = buckets.into_iter().find(|(_, count)| *count >= share * all)?;
        bound.is_finite().then_some(bound)
    }

    fn of_metric<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let ours = move |series: &str| series.split('{').next() == Some(metric);
        self.0.iter().filter(move |(series, _)| ours(series)).map(|(series, value)| (series.as_str(), *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket_and_counts_only_what_came_since() {
        let text = |one: u32, two: u32, all: u32| {
            Scrape::parse(&format!(
                "# HELP x\nx_bucket{{le=\"0.1\"}} {one}\nx_bucket{{le=\"1.0\"}} {two}\nx_bucket{{le=\"+Inf\"}} {all}\n"
            ))
        };
        let (before, after) = (text(100, 100, 100), text(100, 150, 152));
        assert_eq!(after.quantile_since(&before, "x", 0.5), Some(1.0));
        assert_eq!(after.quantile_since(&before, "x", 0.99), None);
    }

    #[test]
    fn series_of_one_metric_are_summed() {
        let scrape = Scrape::parse(
            "cpe_probes_total{kind=\"a\",outcome=\"passed\"} 2\ncpe_probes_total{kind=\"b\",outcome=\"failed\"} 3\n",
        );
        assert_eq!((scrape.sum("cpe_probes_total"), scrape.passed(), scrape.value("no")), (5.0, 2.0, 0.0));
    }
}
