//! Header blocks: the examples of RFC 7541, eviction, expansion.

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn decoded(hpack: &mut Hpack, block: &str) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (fields, whole) = hpack.decode(&hex(block)).unwrap();
    assert!(whole);
    fields.iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// RFC 7541 C.4: Huffman strings and the dynamic table.
#[test]
fn hpack_request_examples() {
    let mut hpack = Hpack::new();
    let authority = (":authority", "www.example.com");
    assert_eq!(
        decoded(&mut hpack, "828684418cf1e3c2e5f23a6ba0ab90f4ff"),
        owned(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), authority])
    );
    let cache = ("cache-control", "no-cache");
    assert_eq!(
        decoded(&mut hpack, "828684be5886a8eb10649cbf"),
        owned(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), authority, cache])
    );
    let custom = ("custom-key", "custom-value");
    let (scheme, path) = ((":scheme", "https"), (":path", "/index.html"));
    assert_eq!(
        decoded(&mut hpack, "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"),
        owned(&[(":method", "GET"), scheme, path, authority, custom])
    );
}

/// RFC 7541 C.6: a table of 256 bytes, so that entries are evicted.
#[test]
fn hpack_response_examples_with_eviction() {
    let mut hpack = Hpack::new();
    let cache = ("cache-control", "private");
    let date = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
    let location = ("location", "https://www.example.com");
    // The examples assume the size; here the encoder says it.
    let first = "3fe101 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 \
                 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
    assert_eq!(decoded(&mut hpack, first), owned(&[(":status", "302"), cache, date, location]));
    assert_eq!(
        decoded(&mut hpack, "4883 640e ffc1 c0bf"),
        owned(&[(":status", "307"), cache, date, location])
    );
    let third = "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab \
                 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
                 9587 3160 65c0 03ed 4ee5 b106 3d50 07";
    let cookie = ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
    let date = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
    let fields = [(":status", "200"), cache, date, location, ("content-encoding", "gzip"), cookie];
    assert_eq!(decoded(&mut hpack, third), owned(&fields));
    // "cache-control" was evicted by the cookie: its old place is empty.
    assert_eq!(hpack.decode(&[0x80 | 65]), Err(GaveUp::BadHeaderBlock));
}

#[test]
fn a_small_block_that_expands_hugely_is_refused_cheaply() {
    let mut hpack = Hpack::new();
    let value = [&b"\x40\x03x-k\x7f\xa1\x1e"[..], &[b'v'; 4000]].concat();
    assert_eq!(hpack.decode(&value).unwrap().0.len(), 1);
    assert_eq!(hpack.decode(&[0x80 | 62; 20_000]), Err(GaveUp::HeadTooLarge));
    // A name that is put into the table anew each time, too.
    let name = [&b"\x40\x7f\xa1\x1e"[..], &[b'n'; 4000], b"\x00"].concat();
    assert_eq!(hpack.decode(&name).unwrap().0.len(), 1);
    assert_eq!(hpack.decode(&b"\x7e\x00".repeat(20_000)), Err(GaveUp::HeadTooLarge));
    // The allowed table size has a ceiling, whatever SETTINGS say.
    hpack.allow(u32::MAX);
    assert_eq!(hpack.decode(&hex("3fe1ffff7f 82")), Err(GaveUp::BadHeaderBlock));
    assert!(hpack.decode(&hex("3fe1ff07 82")).is_ok());
}

/// What is too much to be kept is decoded all the same: the next block refers to what this one put
/// into the table.
#[test]
fn a_list_that_is_too_long_keeps_the_table_in_step() {
    let mut hpack = Hpack::new();
    let many = [&[0x82; 600][..], INDEXED].concat();
    let (fields, whole) = hpack.decode(&many).unwrap();
    assert_eq!((fields.len(), whole), (512, false));
    let value = [&b"\x40\x03big\x7f\xb9\x16"[..], &[b'v'; 3000]].concat();
    assert!(hpack.decode(&value).unwrap().1);
    let (fields, whole) =
        hpack.decode(&[&[0x80 | 62; 100][..], b"\x40\x01y\x01z"].concat()).unwrap();
    assert!(fields.len() < 100 && !whole);
    assert_eq!(decoded(&mut hpack, "be"), owned(&[("y", "z")]));
}

fn by_loona(decoder: &mut loona_hpack::Decoder<'_>, block: &[u8]) -> Option<Headers> {
    Some(decoder.decode(block).ok()?.into_iter().collect())
}

/// The same bytes, to us and to somebody else's decoder.
#[test]
fn the_huffman_code() {
    for byte in 0..=u8::MAX {
        for more in (0..=u16::MAX).step_by(97) {
            let [high, low] = more.to_be_bytes();
            let value = [byte, high, low, 0xff, 0xff];
            let block = [&[0x40, 1, b'x', 0x85][..], &value].concat();
            let mut loona = loona_hpack::Decoder::new();
            let ours = Hpack::new().decode(&block).ok().map(|(fields, _)| fields);
            assert_eq!(ours, by_loona(&mut loona, &block), "{value:x?}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_another_decoder_makes_of_it(
        blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..6),
    ) {
        let (mut ours, mut loona) = (Hpack::new(), loona_hpack::Decoder::new());
        loona.set_max_allowed_table_size(4096);
        for block in blocks {
            let theirs = by_loona(&mut loona, &block);
            prop_assert_eq!(ours.decode(&block).ok().map(|(fields, _)| fields), theirs.clone());
            // After an error nothing more is decoded.
            if theirs.is_none() {
                break;
            }
        }
    }

    #[test]
    fn what_another_encoder_wrote(
        lists in proptest::collection::vec(
            proptest::collection::vec(("[a-z-]{1,12}", "[ -~]{0,60}"), 0..12), 1..20),
    ) {
        let (mut ours, mut loona) = (Hpack::new(), loona_hpack::Encoder::new());
        for list in lists {
            let fields = list.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            let block = loona.encode(fields);
            prop_assert_eq!(ours.decode(&block).unwrap(), (list.into_iter().collect(), true));
        }
    }
}
