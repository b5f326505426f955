// Package userdma tells userdma which bytes of memory are lent to peers, and sets faults that a test wants.
//
// One file, which needs cgo. The functions are those of userdma's preload library, which userdma.h describes too; without
// it lends do nothing, and faults are errors. Memory is that which the program has registered: of C, or pinned.
package userdma

/*
#cgo LDFLAGS: -ldl
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

static void *find(const char *name) { return dlsym(RTLD_DEFAULT, name); }

static uint64_t lend(uintptr_t memory, size_t length, int rights, const char *label, uint32_t qp_num, uint32_t milliseconds)
{
    uint64_t (*f)(const void *, size_t, int, const char *, uint32_t, uint32_t) = find("userdma_check_lend");
    return f ? f((const void *)memory, length, rights, label, qp_num, milliseconds) : 0;
}

static int take_back(uint64_t lend)
{
    int (*f)(uint64_t) = find("userdma_check_take_back");
    return f ? f(lend) : 0;
}

static int expect_finished(uintptr_t memory, size_t length)
{
    int (*f)(const void *, size_t) = find("userdma_check_expect_finished");
    return f ? f((const void *)memory, length) : 0;
}

static void unchecked(uintptr_t memory, size_t length)
{
    void (*f)(const void *, size_t) = find("userdma_check_unchecked");
    if (f)
        f((const void *)memory, length);
}

static void name(uintptr_t memory, size_t length, const char *text)
{
    void (*f)(const void *, size_t, const char *) = find("userdma_check_name");
    if (f)
        f((const void *)memory, length, text);
}

static long finding(unsigned number, char *id, size_t id_size, char *text, size_t size)
{
    long (*f)(unsigned, char *, size_t, char *, size_t) = find("userdma_check_finding");
    return f ? f(number, id, id_size, text, size) : -ENOSYS;
}

static int inject(const char *rules, char *why, size_t size)
{
    int (*f)(const char *, char *, size_t) = find("userdma_inject");
    return f ? f(rules, why, size) : -ENOSYS;
}

static int inject_clear(int id)
{
    int (*f)(int) = find("userdma_inject_clear");
    return f ? f(id) : -ENOSYS;
}

static long inject_count(int id)
{
    long (*f)(int) = find("userdma_inject_count");
    return f ? f(id) : -ENOSYS;
}

static int inject_wait(int id, uint64_t count, int milliseconds)
{
    int (*f)(int, uint64_t, int) = find("userdma_inject_wait");
    return f ? f(id, count, milliseconds) : -ENOSYS;
}

static int version(void)
{
    int (*f)(void) = find("userdma_inject_version");
    return f ? f() : 0;
}
*/
import "C"

import (
	"errors"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// Rights of a lend.
const (
	Read   = 1
	Write  = 2
	Atomic = 4
)

// Lend is a lend of memory; TakeBack ends it.
type Lend uint64

func address(memory unsafe.Pointer) C.uintptr_t { return C.uintptr_t(uintptr(memory)) }

// LendMemory lends length bytes from now on, before a peer is told of them. With Read alone the owner promises not to change the
// bytes either. label: at most 55 bytes.
func LendMemory(memory unsafe.Pointer, length uintptr, rights int, label string) Lend {
	return LendTo(memory, length, rights, label, 0, 0)
}

// LendTo is LendMemory only for the peer of queue pair qpNum of this process (0: for any), and only for this many milliseconds
// (0: until it is taken back).
func LendTo(memory unsafe.Pointer, length uintptr, rights int, label string, qpNum, milliseconds uint32) Lend {
	text := C.CString(label)
	defer C.free(unsafe.Pointer(text))
	return Lend(C.lend(address(memory), C.size_t(length), C.int(rights), text, C.uint32_t(qpNum), C.uint32_t(milliseconds)))
}

// TakeBack ends the lend; false if this process has not made it (after fork).
func (lend Lend) TakeBack() bool { return lend == 0 || C.take_back(C.uint64_t(lend)) == 0 }

// ExpectFinished relies on it that no request of a peer to these bytes is outstanding; it returns how many are, a finding.
func ExpectFinished(memory unsafe.Pointer, length uintptr) int {
	return int(C.expect_finished(address(memory), C.size_t(length)))
}

// Unchecked says that peers may access these bytes at any time, such as a flag.
func Unchecked(memory unsafe.Pointer, length uintptr) { C.unchecked(address(memory), C.size_t(length)) }

// Name names these bytes in findings, in at most 55 bytes.
func Name(memory unsafe.Pointer, length uintptr, name string) {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	C.name(address(memory), C.size_t(length), text)
}

// Fault has fault rules; Clear ends them, for example by t.Cleanup.
type Fault struct{ id C.int }

// SetFault sets fault rules, the text of `--fault`. Rules for packets act on packets of this process's queue pairs, other
// rules on this process. What touches a whole device, such as "link=50ms", needs a device that no other process has open, or
// a daemon with --allow-faults. The error says why they are refused.
func SetFault(rules string) (*Fault, error) {
	text := C.CString(rules)
	defer C.free(unsafe.Pointer(text))
	var why [512]C.char
	id := C.inject(text, &why[0], C.size_t(len(why)))
	if id > 0 {
		return &Fault{id}, nil
	}
	if sentence := C.GoString(&why[0]); sentence != "" {
		return nil, errors.New(sentence)
	}
	return nil, syscall.Errno(-id)
}

// Clear ends the rules; links that they have taken down are up again. No effect when repeated.
func (fault *Fault) Clear() {
	if fault.id > 0 {
		C.inject_clear(fault.id)
	}
	fault.id = 0
}

// Count tells how often the rules have acted so far; each effect on a packet counts.
func (fault *Fault) Count() int64 { return int64(C.inject_count(fault.id)) }

// Wait waits until the rules have acted n times, or returns syscall.ETIMEDOUT.
func (fault *Fault) Wait(n uint64, limit time.Duration) error {
	if result := C.inject_wait(fault.id, C.uint64_t(n), C.int(limit.Milliseconds())); result != 0 {
		return syscall.Errno(-result)
	}
	return nil
}

// Test is what Check uses of *testing.T.
type Test interface {
	Helper()
	Cleanup(func())
	Errorf(format string, arguments ...any)
}

// findings returns the findings after the first from, as name and sentence.
func findings(from int) (found [][2]string) {
	var name [64]C.char
	var text [1100]C.char
	for {
		number := from + len(found)
		if int(C.finding(C.uint(number), &name[0], 64, &text[0], 1100)) <= number {
			return found
		}
		found = append(found, [2]string{C.GoString(&name[0]), C.GoString(&text[0])})
	}
}

// Check lets errors of `userdma check` fail the test that causes them, except the expected ones, which must be found. Tests that
// use it must not be parallel.
func Check(t Test, expected ...string) {
	t.Helper()
	from := len(findings(0))
	t.Cleanup(func() {
		missing := map[string]bool{}
		for _, name := range expected {
			missing[name] = Present()
		}
		for _, one := range findings(from) {
			if _, isExpected := missing[one[0]]; !isExpected && strings.HasPrefix(one[1], "error ") {
				t.Errorf("userdma check: %s", one[1])
			} else if isExpected {
				missing[one[0]] = false
			}
		}
		for name, isMissing := range missing {
			if isMissing {
				t.Errorf("userdma check: %s was expected, and not found", name)
			}
		}
	})
}

// Present tells whether the program runs with userdma of this file's version; otherwise a test that needs faults skips.
func Present() bool { return C.version() == 1 }
