//! What a program can tell userdma: which bytes of its memory are lent to peers, and faults that it wants in a test.
//!
//! One file without dependencies, for Linux: `mod userdma;`. The functions are those of userdma's preload library, which
//! userdma.h describes too; without it lends do nothing, and faults are errors.
//!
//! ```ignore
//! let lend = userdma::lend(buffer.as_ptr(), buffer.len(), userdma::READ, "request 17");
//! drop(lend); // taken back
//! let fault = userdma::fault("drop=100%")?;
//! fault.wait(1, Some(std::time::Duration::from_secs(10)))?; // has acted; it ends when it is dropped
//! ```
#![allow(dead_code)]

use std::ffi::{c_char, c_int, c_long, c_void, CString};
use std::io;
use std::mem::transmute;
use std::sync::OnceLock;
use std::time::Duration;

pub const READ: i32 = 1;
pub const WRITE: i32 = 2;
pub const ATOMIC: i32 = 4;

extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

type LendFn = unsafe extern "C" fn(*const c_void, usize, c_int, *const c_char, u32, u32) -> u64;
type TakeBackFn = unsafe extern "C" fn(u64) -> c_int;
type RangeFn = unsafe extern "C" fn(*const c_void, usize) -> c_int;
type UncheckedFn = unsafe extern "C" fn(*const c_void, usize);
type NameFn = unsafe extern "C" fn(*const c_void, usize, *const c_char);
type FindingFn = unsafe extern "C" fn(u32, *mut c_char, usize, *mut c_char, usize) -> c_long;
type InjectFn = unsafe extern "C" fn(*const c_char, *mut c_char, usize) -> c_int;
type ClearFn = unsafe extern "C" fn(c_int) -> c_int;
type CountFn = unsafe extern "C" fn(c_int) -> c_long;
type WaitFn = unsafe extern "C" fn(c_int, u64, c_int) -> c_int;
type VersionFn = unsafe extern "C" fn() -> c_int;

struct Functions {
    lend: LendFn,
    take_back: TakeBackFn,
    expect_finished: RangeFn,
    unchecked: UncheckedFn,
    name: NameFn,
    finding: FindingFn,
    inject: InjectFn,
    clear: ClearFn,
    count: CountFn,
    wait: WaitFn,
    version: VersionFn,
}

/// None: the preload library is absent.
fn functions() -> Option<&'static Functions> {
    static KNOWN: OnceLock<Option<Functions>> = OnceLock::new();
    fn symbol(name: &str) -> Option<*mut c_void> {
        let name = CString::new(format!("userdma_{name}")).ok()?;
        // RTLD_DEFAULT
        let found = unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) };
        (!found.is_null()).then_some(found)
    }
    let find = || unsafe {
        Some(Functions {
            lend: transmute::<*mut c_void, LendFn>(symbol("check_lend")?),
            take_back: transmute::<*mut c_void, TakeBackFn>(symbol("check_take_back")?),
            expect_finished: transmute::<*mut c_void, RangeFn>(symbol("check_expect_finished")?),
            unchecked: transmute::<*mut c_void, UncheckedFn>(symbol("check_unchecked")?),
            name: transmute::<*mut c_void, NameFn>(symbol("check_name")?),
            finding: transmute::<*mut c_void, FindingFn>(symbol("check_finding")?),
            inject: transmute::<*mut c_void, InjectFn>(symbol("inject")?),
            clear: transmute::<*mut c_void, ClearFn>(symbol("inject_clear")?),
            count: transmute::<*mut c_void, CountFn>(symbol("inject_count")?),
            wait: transmute::<*mut c_void, WaitFn>(symbol("inject_wait")?),
            version: transmute::<*mut c_void, VersionFn>(symbol("inject_version")?),
        })
    };
    KNOWN.get_or_init(find).as_ref()
}

/// Up to the first byte 0.
fn text(label: &str) -> CString {
    let end = label.find('\0').unwrap_or(label.len());
    CString::new(&label[..end]).unwrap_or_default()
}

/// A lend, which ends when it is dropped.
#[must_use = "the lend ends when it is dropped"]
#[derive(Debug)]
pub struct Lend(u64);

impl Lend {
    /// Ends the lend; false if this process has not made it (after fork).
    pub fn take_back(mut self) -> bool {
        self.end()
    }

    fn end(&mut self) -> bool {
        let lend = std::mem::take(&mut self.0);
        lend == 0 || functions().map_or(true, |f| unsafe { (f.take_back)(lend) == 0 })
    }
}

impl Drop for Lend {
    fn drop(&mut self) {
        self.end();
    }
}

/// Lends `length` bytes of this process's memory from now on, before a peer is told of them. `rights`: READ, WRITE and
/// ATOMIC; with READ alone the owner promises not to change the bytes either. `label`: at most 55 bytes.
pub fn lend<T: ?Sized>(memory: *const T, length: usize, rights: i32, label: &str) -> Lend {
    lend_to(memory, length, rights, label, 0, 0)
}

/// The same, only for the peer of queue pair `qp_num` of this process (0: for any), and only for this many milliseconds (0:
/// until it is taken back).
pub fn lend_to<T: ?Sized>(memory: *const T, length: usize, rights: i32, label: &str, qp_num: u32, milliseconds: u32) -> Lend {
    let label = text(label);
    Lend(functions().map_or(0, |f| unsafe {
        (f.lend)(memory.cast(), length, rights, label.as_ptr(), qp_num, milliseconds)
    }))
}

/// Relies on it that no request of a peer to these bytes is outstanding; returns how many are, which is a finding.
pub fn expect_finished<T: ?Sized>(memory: *const T, length: usize) -> i32 {
    functions().map_or(0, |f| unsafe { (f.expect_finished)(memory.cast(), length) })
}

/// Peers may access these bytes at any time, such as a flag.
pub fn unchecked<T: ?Sized>(memory: *const T, length: usize) {
    if let Some(f) = functions() {
        unsafe { (f.unchecked)(memory.cast(), length) }
    }
}

/// The name of these bytes in findings, at most 55 bytes.
pub fn name<T: ?Sized>(memory: *const T, length: usize, name: &str) {
    let name = text(name);
    if let Some(f) = functions() {
        unsafe { (f.name)(memory.cast(), length, name.as_ptr()) }
    }
}

/// Fault rules, which end when it is dropped.
#[must_use = "the fault ends when it is dropped"]
#[derive(Debug)]
pub struct Fault(c_int);

impl Fault {
    /// How often the rules have acted so far; each effect on a packet counts.
    pub fn count(&self) -> u64 {
        functions().map_or(0, |f| unsafe { (f.count)(self.0) }.max(0) as u64)
    }

    /// Waits until the rules have acted `n` times; None: without limit. The error is ErrorKind::TimedOut.
    pub fn wait(&self, n: u64, limit: Option<Duration>) -> io::Result<()> {
        let milliseconds = limit.map_or(-1, |limit| limit.as_millis().min(i32::MAX as u128) as c_int);
        match functions().map_or(-38, |f| unsafe { (f.wait)(self.0, n, milliseconds) }) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(-error)),
        }
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        if let Some(f) = functions() {
            unsafe { (f.clear)(self.0) };
        }
    }
}

/// Sets fault rules, the text of `--fault`, until they are dropped. Rules for packets act on packets of this process's queue
/// pairs, other rules on this process. What touches a whole device, such as `link=50ms`, needs a device that no other
/// process has open, or a daemon with `--allow-faults`. The error says why they are refused.
pub fn fault(rules: &str) -> io::Result<Fault> {
    let functions = functions().ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "the program does not run with userdma"))?;
    let rules = text(rules);
    let mut why: [c_char; 512] = [0; 512];
    let id = unsafe { (functions.inject)(rules.as_ptr(), why.as_mut_ptr(), why.len()) };
    if id > 0 {
        return Ok(Fault(id));
    }
    let why = read_text(&why);
    let error = io::Error::from_raw_os_error(-id);
    Err(if why.is_empty() { error } else { io::Error::new(error.kind(), why) })
}

fn read_text(bytes: &[c_char]) -> String {
    unsafe { std::ffi::CStr::from_ptr(bytes.as_ptr()) }.to_string_lossy().into_owned()
}

/// The findings of `userdma check` after the first `from`, as name and sentence; the sentence begins with the severity.
pub fn findings(from: usize) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let Some(f) = functions() else { return found };
    loop {
        let (mut name, mut text): ([c_char; 64], [c_char; 1100]) = ([0; 64], [0; 1100]);
        let number = from + found.len();
        let count = unsafe { (f.finding)(number as u32, name.as_mut_ptr(), name.len(), text.as_mut_ptr(), text.len()) };
        if count <= number as c_long {
            return found;
        }
        found.push((read_text(&name), read_text(&text)));
    }
}

/// A test whose findings fail it when this is dropped; other tests of the process wait for it.
#[must_use = "findings are looked at when it is dropped"]
#[derive(Debug)]
pub struct Checked {
    expected: Vec<String>,
    from: usize,
    _others: std::sync::MutexGuard<'static, ()>,
}

/// Begins a test in which `userdma check` must find these, and no other error.
pub fn checked(expected: &[&str]) -> Checked {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let others = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    Checked { expected: expected.iter().map(|name| name.to_string()).collect(), from: findings(0).len(), _others: others }
}

impl Drop for Checked {
    fn drop(&mut self) {
        if std::thread::panicking() || functions().is_none() {
            return;
        }
        let found = findings(self.from);
        let is_failure = |(name, text): &&(String, String)| text.starts_with("error ") && !self.expected.contains(name);
        let mut lines: Vec<String> = found.iter().filter(is_failure).map(|(_, text)| text.clone()).collect();
        let is_missing = |name: &&String| !found.iter().any(|(other, _)| other == *name);
        lines.extend(self.expected.iter().filter(is_missing).map(|name| format!("{name} was expected, and not found")));
        assert!(lines.is_empty(), "userdma check: {}", lines.join("\n"));
    }
}

/// Whether the program runs with userdma of this file's version; otherwise a test that needs faults skips.
pub fn present() -> bool {
    functions().map_or(false, |f| unsafe { (f.version)() == 1 })
}
