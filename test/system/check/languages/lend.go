package main

// #cgo LDFLAGS: -lpeers
// char *peers_open(void);
// int peers_read(void);
// unsigned peers_qpn(void);
// int peers_close(void);
import "C"

import (
	"fmt"
	"time"
	"unsafe"

	"lend/userdma"
)

func need(isTrue bool) {
	if !isTrue {
		panic("lend.go")
	}
}

func main() {
	need(userdma.Present())
	buffer := unsafe.Pointer(C.peers_open())
	fault, err := userdma.SetFault(fmt.Sprintf("qp=%d,drop=100%%,count=1", C.peers_qpn()))
	need(err == nil)
	need(C.peers_read() == 0)
	need(fault.Wait(1, time.Minute) == nil)
	need(fault.Count() == 1)
	fault.Clear()
	_, err = userdma.SetFault("drp=1")
	need(err != nil)
	userdma.Name(buffer, 4096, "pool")
	lend := userdma.LendMemory(buffer, 4096, userdma.Read, "request 1")
	need(C.peers_read() == 0)
	need(lend.TakeBack())
	need(userdma.ExpectFinished(buffer, 4096) == 0)
	userdma.Unchecked(buffer, 8)
	need(C.peers_read() == 0)
	need(C.peers_close() == 0)
}
