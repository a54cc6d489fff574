//go:build linux && (amd64 || arm64)

package badcard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// unable says why there can be no card here; kernel if nobody could mend that.
func unable() (why string, kernel bool) {
	filesystems, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err.Error(), false
	}
	if !strings.Contains(string(filesystems), "\tfuse\n") && exec.Command("modprobe", "fuse").Run() != nil {
		return "the kernel has no FUSE", true
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		return "the kernel has no /dev/fuse", true
	case err != nil:
		return err.Error(), false
	}
	f.Close()
	if os.Geteuid() != 0 {
		return "only root may mount one", false
	}
	return "", false
}

// plan is what fails.
type plan struct {
	mu     sync.Mutex
	faults []Fault
	half   []bool // of each: the first half of a write was written
	hits   int
}

func (p *plan) set(faults []Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults, p.half, p.hits = faults, make([]bool, len(faults)), 0
}

func (p *plan) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits
}

// meet decides about a request for size bytes at off of a file. Of a write the
// first n bytes succeed, if n is not 0.
func (p *plan) meet(op Op, name string, off, size int64) (n int64, errno syscall.Errno) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.faults {
		f := &p.faults[i]
		fits, _ := path.Match(f.File, name)
		switch {
		case !slices.Contains(f.Ops, op), f.File != "" && !fits, f.Times < 0:
			continue
		case op == Read || op == Write:
			// The rest of a write whose first half has succeeded is shorter.
			if size <= int64(f.Longer) && !p.half[i] || off+size <= f.From || f.To > 0 && off >= f.To {
				continue
			}
		}
		if f.Half && op == Write && !p.half[i] && size > 1 {
			p.half[i] = true
			return size / 2, 0
		}
		p.half[i] = false
		p.hits++
		if f.Times == 1 {
			f.Times = -1 // it has failed often enough
		} else if f.Times > 0 {
			f.Times--
		}
		return 0, f.Errno
	}
	return 0, 0
}

// node is a file or a folder of the card.
type node struct {
	fs.LoopbackNode
	p *plan
}

func (n *node) name() string {
	name, _ := n.Parent()
	return name
}

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_TRUNC != 0 {
		if _, errno := n.p.meet(Truncate, n.name(), 0, 0); errno != 0 {
			return nil, 0, errno
		}
	}
	h, f, errno := n.LoopbackNode.Open(ctx, flags)
	return n.handle(h), f, errno
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if _, errno := n.p.meet(Create, name, 0, 0); errno != 0 {
		return nil, nil, 0, errno
	}
	inode, h, f, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return inode, inode.Operations().(*node).handle(h), f, 0
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if _, errno := n.p.meet(Create, name, 0, 0); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Mkdir(ctx, name, mode, out)
}

func (n *node) Rename(ctx context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	for _, name := range []string{name, newName} {
		if _, errno := n.p.meet(Rename, name, 0, 0); errno != 0 {
			return errno
		}
	}
	return n.LoopbackNode.Rename(ctx, name, to, newName, flags)
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	if _, errno := n.p.meet(Remove, name, 0, 0); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Unlink(ctx, name)
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	if _, errno := n.p.meet(Remove, name, 0, 0); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Rmdir(ctx, name)
}

func (n *node) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if _, ok := in.GetSize(); ok {
		if _, errno := n.p.meet(Truncate, n.name(), 0, 0); errno != 0 {
			return errno
		}
	}
	return n.LoopbackNode.Setattr(ctx, h, in, out)
}

// Fsync is also that of a folder.
func (n *node) Fsync(ctx context.Context, h fs.FileHandle, flags uint32) syscall.Errno {
	if _, errno := n.p.meet(Sync, n.name(), 0, 0); errno != 0 {
		return errno
	}
	if h, ok := h.(fs.FileFsyncer); ok {
		return h.Fsync(ctx, flags)
	}
	return 0
}

func (n *node) handle(h fs.FileHandle) fs.FileHandle {
	if h, ok := h.(*fs.LoopbackFile); ok {
		return &handle{h, n}
	}
	return h
}

// opened is a handle of the library, of which the kernel must not know the file
// below: it would read and write that by itself.
type opened interface {
	fs.FileReader
	fs.FileWriter
	fs.FileReleaser
	fs.FileFlusher
	fs.FileFsyncer
	fs.FileGetattrer
	fs.FileSetattrer
	fs.FileAllocater
}

// WrapChild makes every file and folder below n a node.
func (n *node) WrapChild(_ context.Context, _ fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{fs.LoopbackNode{RootData: n.RootData}, n.p}
}

type handle struct {
	opened
	n *node
}

func (h *handle) Read(ctx context.Context, b []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if _, errno := h.n.p.meet(Read, h.n.name(), off, int64(len(b))); errno != 0 {
		return nil, errno
	}
	return h.opened.Read(ctx, b, off)
}

func (h *handle) Write(ctx context.Context, b []byte, off int64) (uint32, syscall.Errno) {
	n, errno := h.n.p.meet(Write, h.n.name(), off, int64(len(b)))
	switch {
	case errno != 0:
		return 0, errno
	case n > 0:
		b = b[:n]
	}
	return h.opened.Write(ctx, b, off)
}

func (h *handle) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if _, errno := h.n.p.meet(Allocate, h.n.name(), int64(off), int64(size)); errno != 0 {
		return errno
	}
	return h.opened.Allocate(ctx, off, size, mode)
}

// serve is the server's process: it serves the card in dir until its standard
// input ends, and leaves no mount behind, whatever became of the test.
func serve(dir string) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM) // the test says when it is over
	p := &plan{}
	files := &fs.LoopbackRoot{Path: below(dir)}
	root := &node{fs.LoopbackNode{RootData: files}, p}
	files.RootNode = root
	card := filepath.Join(dir, "card")
	if _, err := fs.Mount(card, root, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, MaxWrite: 512 << 10, FsName: "holdfast-badcard", Name: "badcard",
	}}); err != nil {
		return fmt.Errorf("mount the card: %w", err)
	}
	out, in := json.NewEncoder(os.Stdout), json.NewDecoder(os.Stdin)
	err := out.Encode(answer{})
	for err == nil {
		var o order
		if err = in.Decode(&o); err != nil {
			break
		}
		if !o.Look {
			p.set(o.Faults)
			forget(root.EmbeddedInode())
		}
		err = out.Encode(answer{Hits: p.count()})
	}
	// Whoever still has a file of it open gets errors from now on.
	return unix.Unmount(card, unix.MNT_DETACH)
}

// forget has the kernel forget what it has read of the files below n.
func forget(n *fs.Inode) {
	for _, c := range n.Children() {
		_ = c.NotifyContent(0, 0) // the kernel may not know it any more
		forget(c)
	}
}
