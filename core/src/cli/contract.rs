//! `garam contract infer`: a contract from a sample of a file, for a person to read and correct.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use garam_refine::infer;
use garam_stage::ContractConfig;
use serde_json::json;

use super::exit::{Exit, coded, eprintln_quietly};
use super::output::{self, Format};

/// How much of a file is looked at: enough lines, and never a whole disk.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Propose a contract from a sample of records
    #[command(
        after_help = "Examples:\n  garam contract infer /var/log/orders/orders.log --stream orders\n  head -1000 x.json | garam contract infer -\n\n\
Prints the tables for garam.toml; what it cannot know (keys, bounds, who may be null) is yours to say. Needs no configuration.\n\
Exit codes: 0 ok, 1 the file cannot be read, 3 it holds no lines."
    )]
    Infer {
        /// The file, or - for stdin.
        file: PathBuf,
        /// The stream's name in the proposal.
        #[arg(long, default_value = "NAME")]
        stream: String,
        /// At most this many lines are looked at.
        #[arg(long, default_value_t = 10_000)]
        lines: usize,
    },
}

pub(crate) fn dispatch(verb: Verb, format: Format) -> anyhow::Result<Exit> {
    let Verb::Infer { file, stream, lines } = verb;
    let sample = sample(&file, lines)?;
    let sample: Vec<&str> = sample.iter().map(String::as_str).collect();
    let Some(body) = infer::infer(&sample) else {
        return Err(coded(Exit::NotFound, anyhow!("{} holds no lines", file.display())));
    };
    let config: ContractConfig =
        toml::from_str(&body).context("the proposal cannot be read: a fault in Garam itself")?;
    let (fit, first) = infer::fit(&config.check()?, &sample);
    let columns = format!("[stream.{stream}.contract.columns]");
    let text = format!("[stream.{stream}.contract]\n{}", body.replace("[columns]", &columns));
    let value = json!({ "toml": text, "lines": sample.len(), "fit": fit, "first_misfit": first });
    output::print_text(format, &value, &text)?;
    eprintln_quietly(&format!("{fit} of {} lines fit", sample.len()));
    if let Some(first) = first {
        eprintln_quietly(&format!("the first that does not: {first}"));
    }
    Ok(Exit::Ok)
}

/// The first lines. Bytes that are no text are shown as such: they would be put aside.
fn sample(file: &PathBuf, lines: usize) -> anyhow::Result<Vec<String>> {
    let input: Box<dyn std::io::Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        let opened = std::fs::File::open(file);
        Box::new(opened.with_context(|| format!("cannot read {}", file.display()))?)
    };
    let mut found = Vec::new();
    for line in BufReader::new(input.take(MOST_BYTES)).split(b'\n').take(lines) {
        let line = line.with_context(|| format!("cannot read {}", file.display()))?;
        let text = String::from_utf8_lossy(&line).into_owned();
        let text = text.strip_suffix('\r').map_or(text.clone(), str::to_owned);
        if !text.trim().is_empty() {
            found.push(text);
        }
    }
    Ok(found)
}
