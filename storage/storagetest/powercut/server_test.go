//go:build linux && (amd64 || arm64)

package powercut

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The disk is served by a process of its own: one that serves a mount and
// faults on a page of it would wait for itself.

// order is one line from the test to the server, answer one line back.
type order struct {
	Do     string // fill, arm, cut, await, save, image, mounted
	Faults faults
	Kind   int
	Seed   uint64
	Wait   time.Duration
	Path   string
}

type answer struct {
	Err                    string
	Off                    bool
	Writes, Syncs, Pending int
}

// root and file are the file system: one folder with one file, the disk.
type root struct {
	fs.Inode
	d *disk
}

func (r *root) OnAdd(ctx context.Context) {
	r.AddChild("disk", r.NewPersistentInode(ctx, &file{d: r.d}, fs.StableAttr{Mode: fuse.S_IFREG}), false)
}

type file struct {
	fs.Inode
	d *disk
}

var (
	_ fs.NodeGetattrer = (*file)(nil)
	_ fs.NodeOpener    = (*file)(nil)
	_ fs.NodeReader    = (*file)(nil)
	_ fs.NodeWriter    = (*file)(nil)
	_ fs.NodeFsyncer   = (*file)(nil)
)

func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = fuse.S_IFREG|0o600, uint64(len(f.d.live)) // its length never changes
	return 0
}

// Open asks the kernel to keep nothing of the file: its cache would be one that
// no cut empties.
func (f *file) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *file) Read(_ context.Context, _ fs.FileHandle, b []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	n, errno := f.d.read(b, at)
	return fuse.ReadResultData(b[:n]), errno
}

func (f *file) Write(_ context.Context, _ fs.FileHandle, b []byte, at int64) (uint32, syscall.Errno) {
	if errno := f.d.write(b, at); errno != 0 {
		return 0, errno
	}
	return uint32(len(b)), 0
}

func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return f.d.sync() }

// serve is the server's process: it serves the disk under dir until its
// standard input ends, and leaves no mount behind, whatever became of the test.
func serve(dir string) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM) // the test says when it is over
	base, err := os.ReadFile(os.Getenv(envBase))
	if err != nil {
		return err
	}
	debug.SetMemoryLimit(6 * diskSize) // the disk is there four times, and its cache
	r := &root{d: newDisk(base)}
	server, err := fs.Mount(dir, r, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, MaxWrite: 512 << 10, FsName: "holdfast-powercut", Name: "powercut",
	}})
	if err != nil {
		return fmt.Errorf("mount the disk: %w", err)
	}
	out, in := json.NewEncoder(os.Stdout), json.NewDecoder(os.Stdin)
	var above string // what is mounted on the disk
	err = out.Encode(answer{})
	for err == nil {
		var o order
		if err = in.Decode(&o); err != nil {
			break
		}
		a := answer{}
		switch o.Do {
		case "fill":
			r.d.fill(base)
		case "mounted":
			above = o.Path
		default:
			a = r.d.obey(o)
		}
		err = out.Encode(a)
	}
	if above != "" {
		// Only if the test was ended in the middle; the loop device goes with
		// its last user.
		_ = unix.Unmount(above, unix.MNT_DETACH)
	}
	return errors.Join(server.Unmount())
}

func (d *disk) obey(o order) (a answer) {
	switch o.Do {
	case "arm":
		d.arm(o.Faults)
	case "cut":
		d.cut()
	case "await":
		t := time.NewTimer(o.Wait)
		defer t.Stop()
		select {
		case <-d.whenOff():
		case <-t.C:
		}
	case "save":
		d.save()
	case "image":
		d.image(o.Kind, o.Seed)
	case "look":
	default:
		a.Err = "unknown: " + o.Do
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a.Off, a.Writes, a.Syncs, a.Pending = d.isOff(), d.writes, d.syncs, len(d.pending)
	return a
}
