//! A timer of the wall clock: it rings when a moment has come, and when somebody set the clock or the machine has slept, so
//! that nobody has to look at the clock again and again. See timerfd_create(2).

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

/// A moment that has come; 0 would stand for "never".
const PAST: TimeSpec = TimeSpec::new(1, 0);

/// A timer.
#[derive(Debug)]
pub(crate) struct WallTimer(AsyncFd<Timer>);

#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl WallTimer {
    /// One that does not ring yet.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags)?;
        #[expect(
            deprecated,
            reason = "the other one is unsafe; a timer owns its descriptor, and always names the same"
        )]
        let timer = AsyncFd::new(Timer(timer))?;
        Ok(Self(timer))
    }

    /// Rings at `moment`, which may be past, and when the clock is set before that; never when there is none.
    ///
    /// # Errors
    /// When the kernel cannot tell that the clock was set.
    pub(crate) fn set(&self, moment: Option<Timestamp>) -> io::Result<()> {
        let timer = &self.0.get_ref().0;
        let Some(moment) = moment else { return Ok(timer.unset()?) };
        // 0 would stand for "never".
        let time = TimeSpec::new(moment.as_second().max(1), moment.subsec_nanosecond().max(0).into());
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        match timer.set(Expiration::OneShot(time), flags) {
            // The clock was set since somebody read it to say `moment`: so they are to look again, and at once.
            Err(Errno::ECANCELED) => {
                Ok(timer.set(Expiration::OneShot(PAST), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
            }
            set => Ok(set?),
        }
    }

    /// Until it rings.
    pub(crate) async fn ring(&self) {
        loop {
            // Its descriptor is its own: only the end of the runtime makes this fail.
            let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
            // A clock that was set ends the wait as well.
            match ready.try_io(|timer| Ok(timer.get_ref().0.wait()?)) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::error!(%error, "an alarm does not ring"),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[tokio::test]
    async fn it_rings_at_its_moment_and_not_before() {
        let alarm = WallTimer::new().expect("a timer");
        let moment = Timestamp::now() + SignedDuration::from_millis(30);
        alarm.set(Some(moment)).expect("set");
        alarm.ring().await;
        assert!(Timestamp::now() >= moment);
        alarm.set(Some(Timestamp::UNIX_EPOCH)).expect("set");
        alarm.ring().await;
    }
}
