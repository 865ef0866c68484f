//! Signals as orders: each process that obeys some has a thread that waits for them.

use std::io;
use std::thread;

use signal_hook::iterator::Signals;
use tokio::sync::mpsc::UnboundedSender;

/// Sends what a signal orders; `None`: it is taken and nothing follows. Ends when nobody listens.
///
/// # Errors
/// The signals can't be taken, or there is no thread: they do then what they do by themselves.
pub fn forward<T: Send + 'static>(
    signals: &[i32],
    to: UnboundedSender<T>,
    order: fn(i32) -> Option<T>,
) -> io::Result<()> {
    let mut signals = Signals::new(signals)?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for order in signals.forever().filter_map(order) {
            if to.send(order).is_err() {
                break;
            }
        }
    })?;
    Ok(())
}
