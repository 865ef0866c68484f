//! Where results go.

use std::io::{self, Write};

/// Standard output, which says so when it can't be written.
#[derive(Debug)]
pub struct Stdout<W>(pub W);

impl<W: Write> Write for Stdout<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(of_stdout)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(of_stdout)
    }
}

/// What is only to be tried again stays what it is.
fn of_stdout(e: io::Error) -> io::Error {
    if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) {
        return e;
    }
    io::Error::new(e.kind(), format!("cannot write to standard output: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failure::told;
    use crate::cli::output::write_json;

    #[test]
    fn a_full_standard_output_is_named() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let failed = write_json(&mut Stdout(Full), &7).unwrap_err();
        let said = told(&failed);
        assert!(said.starts_with("cannot write to standard output: "), "{said}");
    }
}
