//! The binary `millrace`. Everything is in the library, where tests reach it.

fn main() -> std::process::ExitCode {
    millrace::main()
}
