package main

// #cgo LDFLAGS: -lpeers
// char *peers_open(void);
// int peers_read(void);
// int peers_close(void);
import "C"

import (
	"os"
	"unsafe"

	"lend/userdma"
)

func need(isTrue bool) {
	if !isTrue {
		panic("lend.go")
	}
}

func main() {
	need(userdma.Present() == (os.Args[1] == "checked"))
	buffer := unsafe.Pointer(C.peers_open())
	userdma.Name(buffer, 4096, "pool")
	lend := userdma.LendMemory(buffer, 4096, userdma.Read, "request 1")
	need(C.peers_read() == 0)
	need(lend.TakeBack())
	need(userdma.ExpectFinished(buffer, 4096) == 0)
	userdma.Unchecked(buffer, 8)
	need(C.peers_read() == 0)
	need(C.peers_close() == 0)
}
