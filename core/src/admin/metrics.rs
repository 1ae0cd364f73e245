//! Prometheus text: families with a help line and a type, units in the names, labels from the configuration only.
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4. Labels are stream, partition,
//! pipeline, reason and branch: all bounded by what an operator configured; paths and hosts never become labels.

use std::fmt::Write as _;

/// What kind of number a family is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Counter,
    Gauge,
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
