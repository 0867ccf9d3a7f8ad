//! The `gattway` command: all of it is in [`gattway::cli`].

fn main() -> std::process::ExitCode {
    gattway::cli::main()
}
