// Package transfer is go test with userdma: copy userdma.go into a folder userdma of the module, then
// userdma check --private --fail-on never -- go test
package transfer

/*
#cgo LDFLAGS: -libverbs
#include "transfer.h"

static uint32_t number(void *transfer) { return transfer_qp_num(transfer); }
static int put(void *transfer) { return transfer_write(transfer); }
static int put_stale(void *transfer) { return transfer_write_stale(transfer); }
static void release(void *transfer) { transfer_close(transfer); }
*/
import "C"

import "unsafe"

// Transfer has two connected queue pairs of the first device.
type Transfer struct{ handle unsafe.Pointer }

// Open opens the first device.
func Open() Transfer { return Transfer{unsafe.Pointer(C.transfer_open(nil))} }

// QpNum is the number of the queue pair that gets the WRITEs.
func (transfer Transfer) QpNum() uint32 { return uint32(C.number(transfer.handle)) }

// Write returns the status of a WRITE.
func (transfer Transfer) Write() int { return int(C.put(transfer.handle)) }

// WriteStale is the mistake: a WRITE to memory that is not registered any more.
func (transfer Transfer) WriteStale() int { return int(C.put_stale(transfer.handle)) }

// Close destroys all.
func (transfer Transfer) Close() { C.release(transfer.handle) }
