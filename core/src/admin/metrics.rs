//! Prometheus text: families with a help line and a type, units in the names, labels from the configuration only.
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4. Labels are stream, partition,
//! pipeline, table, reason and branch: all bounded by what an operator configured; paths and hosts never become labels.

use std::fmt::Write as _;

/// What kind of number a family is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Collects families into one text.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family. Its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a String cannot fail.
        let _infallible = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { text: &mut self.text, name: name.to_owned() }
    }

    pub fn finish(self) -> String {
        self.text
    }
}

/// A family whose samples are being added.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: String,
}

impl Family<'_> {
    /// Adds a sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.text.push_str(&self.name);
        if !labels.is_empty() {
            let pairs: Vec<_> =
                labels.iter().map(|(k, v)| format!("{k}=\"{}\"", escape(v))).collect();
            let _infallible = write!(self.text, "{{{}}}", pairs.join(","));
        }
        let _infallible = writeln!(self.text, " {value}");
        self
    }

    /// Adds a histogram: how many values each bound keeps, how many there are and their sum.
    pub fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        bounds: &[(f64, u64)],
        count: u64,
        sum: f64,
    ) -> &mut Self {
        let name = self.name.clone();
        self.name = format!("{name}_bucket");
        for (bound, upto) in bounds {
            let bound = bound.to_string();
            self.count(&[labels, &[("le", bound.as_str())]].concat(), *upto);
        }
        self.count(&[labels, &[("le", "+Inf")]].concat(), count);
        self.name = format!("{name}_sum");
        self.sample(labels, sum);
        self.name = format!("{name}_count");
        self.count(labels, count);
        self.name = name;
        self
    }

    /// Adds a whole number.
    pub fn count(&mut self, labels: &[(&str, &str)], value: u64) -> &mut Self {
        self.sample(labels, value as f64)
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_has_its_buckets_sum_and_count() {
        let mut exposition = Exposition::default();
        exposition.family("garam_sink_write_seconds", Kind::Histogram, "Writes.").histogram(
            &[("table", "t")],
            &[(0.005, 1), (1.0, 3)],
            4,
            9.5,
        );
        expect_test::expect![[r#"
            # HELP garam_sink_write_seconds Writes.
            # TYPE garam_sink_write_seconds histogram
            garam_sink_write_seconds_bucket{table="t",le="0.005"} 1
            garam_sink_write_seconds_bucket{table="t",le="1"} 3
            garam_sink_write_seconds_bucket{table="t",le="+Inf"} 4
            garam_sink_write_seconds_sum{table="t"} 9.5
            garam_sink_write_seconds_count{table="t"} 4
        "#]]
        .assert_eq(&exposition.finish());
    }

    #[test]
    fn families_have_help_type_and_escaped_labels() {
        let mut exposition = Exposition::default();
        exposition
            .family("garam_pipeline_delivered_records_total", Kind::Counter, "Records delivered.")
            .count(&[("pipeline", "a\"b")], 3);
        expect_test::expect![[r#"
            # HELP garam_pipeline_delivered_records_total Records delivered.
            # TYPE garam_pipeline_delivered_records_total counter
            garam_pipeline_delivered_records_total{pipeline="a\"b"} 3
        "#]]
        .assert_eq(&exposition.finish());
    }
}
