// Package badcard is a folder on a card that fails as a test tells it to. The
// folder is served through FUSE by a process of its own: what is mapped from it
// is read and written by the kernel, which answers a page that it cannot get with
// SIGBUS, as it does for a card.
package badcard

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Op is a kind of request.
type Op string

const (
	Read     Op = "read"
	Write    Op = "write" // also what the kernel writes of a mapped file
	Sync     Op = "sync"
	Allocate Op = "allocate"
	Create   Op = "create" // of a file or a folder
	Rename   Op = "rename" // File is the old or the new name
	Remove   Op = "remove"
	Truncate Op = "truncate"
)

// Fault is one way in which the card fails.
type Fault struct {
	File  string // a pattern of path.Match for the name without its folder; "" is every file
	Ops   []Op
	Errno syscall.Errno
	// From and To are the bytes of a file that cannot be read or written; To of 0
	// is its end.
	From, To int64
	// Longer leaves reads and writes alone that are not longer than so many bytes.
	Longer int
	// Half has the first half of a write succeed, and only the rest of it fail, as
	// on a full disk.
	Half bool
	// Times is how often it fails; 0 is for ever.
	Times int
}

// ReadOnly has the card answer EROFS to whatever would change it.
func ReadOnly() Fault {
	return Fault{Ops: []Op{Write, Sync, Allocate, Create, Rename, Remove, Truncate}, Errno: syscall.EROFS}
}

// Card is one. Its methods are called by the goroutine of the test.
type Card struct {
	Dir string // the folder

	t   testing.TB
	in  *json.Encoder
	out *json.Decoder
}

// envServe has the process serve the folder in it.
const envServe = "HOLDFAST_BADCARD_SERVE"

// Serve serves a card, if that is what this process was started for, and does not
// return then. TestMain must call it before anything else.
func Serve() {
	dir := os.Getenv(envServe)
	if dir == "" {
		return
	}
	if err := serve(dir); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(0)
}

// Insert makes an empty card, which goes at the end of the test. Where the machine
// cannot do that the test is skipped, loudly; with CI set it fails, unless the
// kernel itself cannot.
func Insert(t testing.TB) *Card {
	t.Helper()
	if why, kernel := unable(); why != "" {
		if os.Getenv("CI") != "" && !kernel {
			t.Fatal("no card can fail here: " + why)
		}
		t.Skip("NOT TESTED, a card that fails: " + why)
	}
	dir := t.TempDir()
	c := &Card{Dir: filepath.Join(dir, "card"), t: t}
	for _, d := range []string{c.Dir, below(dir)} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	server := exec.Command(os.Args[0])
	server.Env = append(os.Environ(), envServe+"="+dir)
	server.Stderr = os.Stderr
	// A group of its own: a Ctrl-C is the test's, the server ends behind it.
	server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	c.in, c.out = json.NewEncoder(in), json.NewDecoder(out)
	t.Cleanup(func() {
		in.Close()
		if err := server.Wait(); err != nil {
			t.Errorf("the server of the card: %v", err)
		}
	})
	var ready answer
	if err := c.out.Decode(&ready); err != nil {
		t.Fatalf("the server of the card does not answer: %v", err)
	}
	return c
}

// below is the folder on the disk of the machine where the files of a card are.
func below(dir string) string { return filepath.Join(dir, "below") }

type order struct {
	Look   bool // only
	Faults []Fault
}

type answer struct {
	Err  string
	Hits int
}

// Fail puts faults in the place of those that there are; none mends the card.
// What the kernel has in memory of its files goes, so that the next read of it is
// one of the card.
func (c *Card) Fail(faults ...Fault) { c.do(order{Faults: faults}) }

// Hits is how many requests have failed since the last Fail.
func (c *Card) Hits() int { return c.do(order{Look: true}).Hits }

func (c *Card) do(o order) (a answer) {
	c.t.Helper()
	if err := c.in.Encode(o); err != nil {
		c.t.Fatal(err)
	}
	if err := c.out.Decode(&a); err != nil {
		c.t.Fatal(err)
	}
	if a.Err != "" {
		c.t.Fatal(a.Err)
	}
	return a
}
