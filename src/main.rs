//! Picks the subcommand. The only place that ends the process.

fn main() -> std::process::ExitCode {
    halton_meter::cli::main(std::env::args_os()).into()
}
