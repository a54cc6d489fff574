//go:build linux && (amd64 || arm64)

package powercut

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// diskSize is that of the disk. ext4 gives it a journal of 4 MiB. A store that
// finds it nearly full drops messages as its rules say, which is not what is
// tried here.
const diskSize = 96 << 20

// superblockCopy is the block where the second group begins, with a copy of the
// superblock; by itself a disk of this size would have one group only.
const superblockCopy = "2048"

// rig is a disk with the parts around it. Everything that it has made is gone
// at the end of the test: the program, the mount, the loop device, the server.
type rig struct {
	t       *testing.T
	dir     string
	mnt     string // where ext4 is mounted
	server  *exec.Cmd
	in      *json.Encoder
	out     *json.Decoder
	loop    string // the loop device of the mount, "" if there is none
	mounted bool
	// repaired counts mounts that needed e2fsck.
	repaired int
}

// need skips the test, loudly, where the machine cannot do this. With CI set
// it fails instead, unless the kernel itself has no FUSE or no loop devices.
func need(t *testing.T) {
	t.Helper()
	lacks := func(what string, kernel bool) {
		if os.Getenv("CI") != "" && !kernel {
			t.Fatal("no power can be cut here: " + what)
		}
		t.Skip("NO POWER CUT WAS TRIED: " + what)
	}
	filesystems, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		lacks(err.Error(), false)
	}
	for _, name := range []string{"fuse", "ext4"} {
		if !strings.Contains(string(filesystems), "\t"+name+"\n") && exec.Command("modprobe", name).Run() != nil {
			lacks("the kernel has no "+name, true)
		}
	}
	for _, device := range []string{"/dev/fuse", "/dev/loop-control"} {
		f, err := os.OpenFile(device, os.O_RDWR, 0)
		switch {
		case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
			lacks("the kernel has no "+device, true)
		case err != nil:
			lacks(err.Error(), false)
		}
		f.Close()
	}
	if os.Geteuid() != 0 {
		lacks("only root may mount", false)
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		if _, err := os.Stat("/usr/sbin/mkfs.ext4"); err != nil {
			lacks("mkfs.ext4 is not installed (e2fsprogs)", false)
		}
	}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	need(t)
	r := &rig{t: t, dir: t.TempDir()}
	r.mnt = filepath.Join(r.dir, "mnt")
	served := filepath.Join(r.dir, "disk")
	for _, d := range []string{r.mnt, served} {
		r.must(os.Mkdir(d, 0o700))
	}
	base := filepath.Join(r.dir, "base")
	f, err := os.Create(base)
	r.must(err)
	r.must(f.Truncate(diskSize))
	r.must(f.Close())
	mkfs := exec.Command("mkfs.ext4", "-q", "-F", "-b", "4096", "-g", superblockCopy, "-E", "lazy_itable_init=0,lazy_journal_init=0", base)
	mkfs.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := mkfs.CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	r.server = exec.Command(os.Args[0])
	r.server.Env = append(os.Environ(), envServe+"="+served, envBase+"="+base)
	r.server.Stderr = os.Stderr
	// A group of its own: a Ctrl-C is the test's, the server ends behind it.
	r.server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := r.server.StdinPipe()
	r.must(err)
	out, err := r.server.StdoutPipe()
	r.must(err)
	r.must(r.server.Start())
	r.in, r.out = json.NewEncoder(in), json.NewDecoder(out)
	t.Cleanup(func() {
		r.unmount()
		in.Close()
		if err := r.server.Wait(); err != nil {
			t.Errorf("the server of the disk: %v", err)
		}
	})
	var ready answer
	r.must(r.out.Decode(&ready))
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) do(o order) (a answer) {
	r.t.Helper()
	r.must(r.in.Encode(o))
	r.must(r.out.Decode(&a))
	if a.Err != "" {
		r.t.Fatal(a.Err)
	}
	return a
}

// eventually waits for a condition.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			r.t.Fatal("not in time: " + what)
		}
	}
}

// attach makes a fresh loop device over the disk, which goes when it is closed
// for the last time.
func (r *rig) attach() (*os.File, error) {
	backing, err := os.OpenFile(filepath.Join(r.dir, "disk", "disk"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: sector}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		if err == nil {
			// A request is one write of the server. Where it is two, the driver
			// takes the failure of the second alone for a success.
			most := "/sys/block/" + filepath.Base(dev.Name()) + "/queue/max_sectors_kb"
			if err := os.WriteFile(most, []byte("256"), 0); err != nil {
				dev.Close()
				return nil, err
			}
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, syscall.EBUSY) { // another process was faster
			return nil, fmt.Errorf("configure %s: %w", dev.Name(), err)
		}
	}
}

// mount mounts the disk; the kernel replays the journal. It fails if the power
// goes meanwhile.
func (r *rig) mount() error {
	dev, err := r.attach()
	if err != nil {
		return err
	}
	defer dev.Close()
	r.loop = filepath.Base(dev.Name())
	err = unix.Mount(dev.Name(), r.mnt, "ext4", 0, "errors=remount-ro")
	if errors.Is(err, syscall.EBADMSG) {
		// ext4 notes an error in its superblock, which has two sectors: with
		// one of them alone its checksum is wrong. A board checks its file
		// system when it starts, and there are copies of the superblock.
		r.repaired++
		check := exec.Command("e2fsck", "-fy", "-b", superblockCopy, "-B", "4096", dev.Name())
		check.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		out, _ := check.CombinedOutput() // its status says what it did; the mount says whether it helped
		if err = unix.Mount(dev.Name(), r.mnt, "ext4", 0, "errors=remount-ro"); err != nil {
			err = fmt.Errorf("%w, after e2fsck: %.500s", err, out)
		}
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", dev.Name(), err)
	}
	r.mounted = true
	r.do(order{Do: "mounted", Path: r.mnt})
	return nil
}

// unmount also waits until the loop device has let go of the disk.
func (r *rig) unmount() {
	if r.mounted {
		r.eventually("unmount", func() bool { return !errors.Is(unix.Unmount(r.mnt, 0), syscall.EBUSY) })
		r.mounted = false
		r.do(order{Do: "mounted"})
	}
	if r.loop != "" {
		ours := filepath.Join(r.dir, "disk", "disk")
		r.eventually("detach "+r.loop, func() bool {
			b, err := os.ReadFile("/sys/block/" + r.loop + "/loop/backing_file")
			return err != nil || strings.TrimSpace(string(b)) != ours
		})
		r.loop = ""
	}
}
