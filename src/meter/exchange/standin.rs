//! Stand-ins until the followers are merged.

pub mod sse {
    #[derive(Debug)]
    pub struct Event<'a> {
        pub name: &'a str,
        pub data: &'a str,
        #[expect(dead_code, reason = "stand-in")]
        pub truncated: bool,
    }
    #[derive(Debug, Default)]
    pub struct Parser {
        line: Vec<u8>,
        name: String,
        data: Option<String>,
    }
    impl Parser {
        pub fn new(_max: usize) -> Self {
            Self::default()
        }
        pub fn feed(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Event<'_>)) {
            for b in bytes {
                if *b == b'\n' {
                    let line = std::mem::take(&mut self.line);
                    let line = String::from_utf8_lossy(&line);
                    let line = line.trim_end_matches('\r');
                    if line.is_empty() {
                        self.emit(sink);
                    } else if let Some(v) = line.strip_prefix("event:") {
                        self.name = v.trim().to_owned();
                    } else if let Some(v) = line.strip_prefix("data:") {
                        self.data.get_or_insert_default().push_str(v.trim_start());
                    }
                } else {
                    self.line.push(*b);
                }
            }
        }
        pub fn finish(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
            self.feed(b"\n", sink);
            self.emit(sink);
        }
        fn emit(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
            if let Some(data) = self.data.take() {
                sink(Event { name: &self.name, data: &data, truncated: false });
            }
            self.name.clear();
        }
    }
}

pub mod coding {
    #[derive(Debug, thiserror::Error)]
    #[error("unsupported")]
    pub struct Error;
    #[derive(Debug)]
    pub struct Decoder;
    impl Decoder {
        pub fn new(coding: &str, _max: u64) -> Result<Self, Error> {
            if coding.is_empty() || coding == "identity" { Ok(Self) } else { Err(Error) }
        }
        #[expect(clippy::unnecessary_wraps, reason = "stand-in")]
        pub fn feed(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
            sink(bytes);
            Ok(())
        }
    }
}
