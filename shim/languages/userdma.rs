//! What a program can tell `userdma check` of memory that peers access: which bytes are lent, for what, and until when.
//!
//! One file without dependencies, for Linux: `mod userdma;`. The functions are those of userdma's preload library, which
//! userdma.h describes too; without it they do nothing.
//!
//! ```ignore
//! let lend = userdma::lend(buffer.as_ptr(), buffer.len(), userdma::READ, "request 17");
//! drop(lend); // taken back
//! ```
#![allow(dead_code)]

use std::ffi::{c_char, c_int, c_void, CString};
use std::mem::transmute;
use std::sync::OnceLock;

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
type PresentFn = unsafe extern "C" fn() -> c_int;

struct Functions {
    lend: LendFn,
    take_back: TakeBackFn,
    expect_finished: RangeFn,
    unchecked: UncheckedFn,
    name: NameFn,
    present: PresentFn,
}

/// None: the preload library is absent.
fn functions() -> Option<&'static Functions> {
    static KNOWN: OnceLock<Option<Functions>> = OnceLock::new();
    fn symbol(name: &str) -> Option<*mut c_void> {
        let name = CString::new(format!("userdma_check_{name}")).ok()?;
        // RTLD_DEFAULT
        let found = unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) };
        (!found.is_null()).then_some(found)
    }
    let find = || unsafe {
        Some(Functions {
            lend: transmute::<*mut c_void, LendFn>(symbol("lend")?),
            take_back: transmute::<*mut c_void, TakeBackFn>(symbol("take_back")?),
            expect_finished: transmute::<*mut c_void, RangeFn>(symbol("expect_finished")?),
            unchecked: transmute::<*mut c_void, UncheckedFn>(symbol("unchecked")?),
            name: transmute::<*mut c_void, NameFn>(symbol("name")?),
            present: transmute::<*mut c_void, PresentFn>(symbol("present")?),
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

/// Whether somebody checks.
pub fn present() -> bool {
    functions().map_or(false, |f| unsafe { (f.present)() != 0 })
}
