package storage

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A folder that is damaged in ways that nobody has thought of opens. What is left
// is intact and in order, the books balance, what can be known to be missing is
// counted, and it works again. HOLDFAST_RUINS=SEED,COUNT ruins so many, from that
// one on; -artifacts keeps the ruined folders that fail.
func TestARuinedFolderOpensAndWorks(t *testing.T) {
	t.Parallel()
	first, count := uint64(1), uint64(8)
	if v := os.Getenv("HOLDFAST_RUINS"); v != "" {
		a, b, _ := strings.Cut(v, ",")
		first, _ = strconv.ParseUint(a, 10, 64)
		count, _ = strconv.ParseUint(b, 10, 64)
	}
	x := makeSite(t, t.TempDir())
	var total ruinReport
	for seed := first; seed < first+count; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			ruined := func(dir string) []string {
				if err := copySparse(dir, x.dir); err != nil {
					t.Fatal(err)
				}
				how, err := x.ruin(dir, rand.New(rand.NewPCG(seed, 1)))
				if err != nil {
					t.Fatal(how, err)
				}
				return how
			}
			dir := filepath.Join(t.TempDir(), "store")
			how := strings.Join(ruined(dir), "\n")
			var log bytes.Buffer
			defer func() {
				if t.Failed() {
					t.Logf("HOLDFAST_RUINS=%d,1\n%s\n%s", seed, how, log.Bytes())
					ruined(filepath.Join(t.ArtifactDir(), "store"))
				}
			}()
			o := ruinOptions(dir)
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			total.add(x.after(t, o, strings.Contains(how, marksName)))
		})
	}
	t.Logf("%d folders: %d messages came, %d were counted as lost, %d are missing and were not", count, total.came, total.lost, total.unseen)
}

// ruin damages a folder in one to three ways, and says how.
func (x *ruinSite) ruin(dir string, rnd *rand.Rand) (how []string, err error) {
	for range 1 + rnd.IntN(3) {
		r := ruin{dir: dir, earlier: x.earlier, rnd: rnd}
		r.name = r.pick([]string{"", "", ".sst", ".sst", ".mem", ".mem", "MANIFEST", marksName}[rnd.IntN(8)])
		if r.name == "" {
			continue
		}
		r.path = filepath.Join(dir, r.name)
		if r.b, err = os.ReadFile(r.path); err != nil {
			return how, err
		}
		r.end = len(bytes.TrimRight(r.b, "\x00"))
		r.from = rnd.IntN(r.end + 1)
		r.to = min(len(r.b), r.from+[]int{1, 8, 64, 512, 4096, 65536}[rnd.IntN(6)])
		kind := ruinKinds[rnd.IntN(len(ruinKinds))]
		what, err := kind.do(&r)
		how = append(how, fmt.Sprintf("%s: %s %s (%d to %d of %d)", r.name, kind.name, what, r.from, r.to, r.end))
		if err != nil {
			return how, err
		}
	}
	return how, nil
}

// ruin is one damage: a file, its bytes, and a part of them before end, behind which
// there are only zeros.
type ruin struct {
	dir, earlier  string
	name, path    string
	b             []byte
	from, to, end int
	rnd           *rand.Rand
}

// pick returns one of the files whose names end so, if there are any.
func (r *ruin) pick(ext string) string {
	list, _ := os.ReadDir(r.dir)
	var names []string
	for _, f := range list {
		if f.Type().IsRegular() && strings.HasSuffix(f.Name(), ext) {
			names = append(names, f.Name())
		}
	}
	if len(names) == 0 {
		return ""
	}
	return names[r.rnd.IntN(len(names))]
}

func (r *ruin) write() (string, error) { return "", os.WriteFile(r.path, r.b, 0o600) }

func (r *ruin) randomize(b []byte) {
	for i := range b {
		b[i] = byte(r.rnd.Uint32())
	}
}

var ruinKinds = []struct {
	name string
	do   func(r *ruin) (what string, err error)
}{
	{"bit", func(r *ruin) (string, error) {
		if r.to > r.from {
			r.b[r.from] ^= 1 << r.rnd.IntN(8)
		}
		return r.write()
	}},
	{"bytes", func(r *ruin) (string, error) {
		r.randomize(r.b[r.from:r.to])
		return r.write()
	}},
	{"zeros", func(r *ruin) (string, error) {
		clear(r.b[r.from:r.to])
		return r.write()
	}},
	{"cut", func(r *ruin) (string, error) { return "", os.Truncate(r.path, int64(r.from)) }},
	{"longer", func(r *ruin) (string, error) {
		more := make([]byte, 1+r.rnd.IntN(9000))
		if r.rnd.IntN(2) == 0 {
			r.randomize(more)
		}
		r.b = append(r.b, more...)
		return r.write()
	}},
	{"swapped with", func(r *ruin) (string, error) {
		other := r.pick("")
		theirs, err := os.ReadFile(filepath.Join(r.dir, other))
		return other, errors.Join(err, os.WriteFile(r.path, theirs, 0o600), os.WriteFile(filepath.Join(r.dir, other), r.b, 0o600))
	}},
	{"gone", func(r *ruin) (string, error) { return "", os.Remove(r.path) }},
	{"folder", func(r *ruin) (string, error) {
		return "", errors.Join(os.Remove(r.path), os.Mkdir(r.path, 0o700))
	}},
	{"empty", func(r *ruin) (string, error) { return "", os.Truncate(r.path, 0) }},
	{"random", func(r *ruin) (string, error) {
		r.randomize(r.b[:r.end])
		return r.write()
	}},
	{"twice, as", func(r *ruin) (string, error) { // under a number that nothing has, or something
		name := fmt.Sprintf("%06d.sst", r.rnd.IntN(200))
		if !strings.HasSuffix(r.name, ".sst") {
			name = fmt.Sprintf("%05d.mem", r.rnd.IntN(200))
		}
		return name, os.WriteFile(filepath.Join(r.dir, name), r.b, 0o600)
	}},
	{"over", func(r *ruin) (string, error) { // another one of its kind
		other := r.pick(filepath.Ext(r.name))
		return other, os.WriteFile(filepath.Join(r.dir, other), r.b, 0o600)
	}},
	{"as it was earlier", func(r *ruin) (string, error) {
		b, err := os.ReadFile(filepath.Join(r.earlier, r.name))
		if errors.Is(err, os.ErrNotExist) {
			return "not", nil
		}
		r.b = b
		_, writeErr := r.write()
		return "", errors.Join(err, writeErr)
	}},
	{"back from earlier, and", func(r *ruin) (string, error) { // a file that is gone since
		list, err := os.ReadDir(r.earlier)
		for _, f := range list {
			to := filepath.Join(r.dir, f.Name())
			if _, gone := os.Lstat(to); gone != nil && err == nil {
				b, readErr := os.ReadFile(filepath.Join(r.earlier, f.Name()))
				return f.Name(), errors.Join(readErr, os.WriteFile(to, b, 0o600))
			}
		}
		return "nothing", err
	}},
	{"forbidden", func(r *ruin) (string, error) { return "", os.Chmod(r.path, 0) }},
	{"linked to", func(r *ruin) (string, error) {
		to := []string{"nowhere", r.name, "/dev/zero", "/dev/null", "."}[r.rnd.IntN(5)]
		return to, errors.Join(os.Remove(r.path), os.Symlink(to, r.path))
	}},
}
