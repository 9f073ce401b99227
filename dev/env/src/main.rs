//! The `tenantry-dev` command.

fn main() -> std::process::ExitCode {
    tenantry_dev::commands::main()
}
