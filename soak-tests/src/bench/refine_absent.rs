//! `bench refine` in a build without the feature that it needs: says how to build it.

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Taken as they are: they mean something in a build that has the benchmark.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<String>,
}

pub(super) fn refuse() -> anyhow::Error {
    anyhow::anyhow!(
        "this build has no `bench refine`, since DataFusion takes minutes to build: \
         cargo run --release --locked -p garam-soak --features bench-refine -- bench refine, or make bench ARGS=\"refine\""
    )
}
