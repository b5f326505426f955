package transfer

import (
	"fmt"
	"os"
	"testing"
	"time"

	"transfer/userdma"
)

func open(t *testing.T, expected ...string) Transfer {
	if !userdma.Present() {
		t.Skip("not under userdma")
	}
	userdma.Check(t, expected...)
	transfer := Open()
	t.Cleanup(transfer.Close)
	return transfer
}

func TestReconnects(t *testing.T) {
	transfer := open(t)
	fault, err := userdma.SetFault(fmt.Sprintf("qp=%d,drop=100%%", transfer.QpNum()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fault.Clear)
	if status := transfer.Write(); status != 12 {
		t.Errorf("status %d of a WRITE whose packets are lost", status)
	}
	if err := fault.Wait(3, 10*time.Second); err != nil {
		t.Error(err)
	}
	fault.Clear()
	if status := transfer.Write(); status != 0 {
		t.Errorf("status %d after the fault", status)
	}
}

func TestSurvivesAStaleKey(t *testing.T) {
	transfer := open(t, "stale-rkey")
	if transfer.WriteStale() == 0 {
		t.Error("a WRITE with a stale key succeeds")
	}
	if status := transfer.Write(); status != 0 {
		t.Errorf("status %d after the failed WRITE", status)
	}
}

// Fails: the finding of the check.
func TestWithAMistake(t *testing.T) {
	if os.Getenv("MISTAKE") == "" {
		t.Skip("MISTAKE is not set")
	}
	open(t).WriteStale()
}

func TestRefusesRules(t *testing.T) {
	open(t)
	if fault, err := userdma.SetFault("drop=101%"); err == nil || fault != nil {
		t.Error("a probability above 100 % is accepted")
	} else {
		t.Log(err)
	}
}
