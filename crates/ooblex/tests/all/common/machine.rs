//! The machine as a resource that tests share. Most tests only wait for states and may run beside
//! others, however slowly. A test that measures rates, times or shares of the CPU begins with
//! [`alone`], and then runs while no other test has a program.
//!
//! Every [`Gateway`](super::Gateway), [`Worker`](super::Worker) and
//! [`RedisServer`](super::RedisServer) holds a [`Share`], so a test need not ask for one, unless it
//! runs the program's commands itself. Programs are started on the thread of the test, by which an
//! [`Alone`] recognises its own.

use std::thread::{self, ThreadId};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Threads of the tests that use the machine.
struct Users {
    alone: Option<ThreadId>,
    shares: Vec<ThreadId>,
}

static USERS: Mutex<Users> = Mutex::new(Users { alone: None, shares: Vec::new() });
static LEFT: Condvar = Condvar::new();

/// Permission to use the machine beside other tests, until it is dropped.
pub struct Share(ThreadId);

/// Permission to use the machine without other tests, until it is dropped.
#[must_use = "other tests run as soon as it is dropped"]
pub struct Alone(());

/// Waits until no test has the machine for itself, or this test has.
pub fn share() -> Share {
    let own = thread::current().id();
    wait_while(|users| users.alone.is_some_and(|alone| alone != own)).shares.push(own);
    Share(own)
}

/// Waits until no other test uses the machine. Call it before the first program is started.
pub fn alone() -> Alone {
    let own = thread::current().id();
    assert!(!USERS.lock().shares.contains(&own), "this test has started programs already");
    wait_while(|users| users.alone.is_some() || !users.shares.is_empty()).alone = Some(own);
    Alone(())
}

fn wait_while(holds: impl Fn(&Users) -> bool) -> MutexGuard<'static, Users> {
    let mut users = USERS.lock();
    LEFT.wait_while(&mut users, |users| holds(users));
    users
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut users = USERS.lock();
        let index = users.shares.iter().position(|user| *user == self.0);
        users.shares.swap_remove(index.expect("each share is listed until it is dropped"));
        LEFT.notify_all();
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        USERS.lock().alone = None;
        LEFT.notify_all();
    }
}
