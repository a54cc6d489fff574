#!/usr/bin/env bash
# Makes build/mod/go.mod, with which everything is built and tested:
#
#     go build -modfile=build/mod/go.mod ./cmd/holdfast
#
# It names copies of the storage engine's modules in which single lines are
# changed, each for the reason that stands beside it below. The copies
# are made here, from the modules that go.mod asks for, so that there is no fork
# to look after. (go build -overlay refuses to replace files of the module cache.)
# Where a line is not there exactly once, this fails and says so.
#
# It is quick when nothing is to be done, and may run many times at once: what is
# there is complete, and is only ever replaced as a whole.
set -euo pipefail
cd "$(dirname "$0")/.."

go=${GO:-go}
self=scripts/patch-modules.sh
out=build/mod

die() {
	echo "patch-modules: $*" >&2
	exit 1
}

# change FILE OLD NEW puts NEW in the place of OLD in the copy in $copying.
change() {
	local file=$1
	[ -f "$copying/$file" ] || die "$module $version has no $file: look where this is now:" $'\n'"$2"
	OLD=$2 NEW=$3 awk '
		{ text = text $0 "\n" }
		END {
			old = ENVIRON["OLD"]
			at = index(text, old)
			rest = substr(text, at + length(old))
			if (at == 0 || index(rest, old) > 0) exit 1
			printf "%s%s%s", substr(text, 1, at - 1), ENVIRON["NEW"], rest
		}' "$copying/$file" >"$tmp/changed" ||
		die "$module $version: this is not exactly once in $file:" $'\n'"$2"$'\n'"Is the fault mended? Then remove the change from $self. If not, adapt it."
	mv "$tmp/changed" "$copying/$file"
}

patch_ristretto() {
	# The arena in which Badger builds its tables shifts an int by 32 bits. Where
	# an int has 32 that is 0: when a buffer is full, memory that is in use is
	# handed out again, and the tables on disk are damaged without an error.
	change z/allocator.go \
		'atomic.StoreUint64(&a.compIdx, uint64((bufIdx+1)<<32))' \
		'atomic.StoreUint64(&a.compIdx, uint64(bufIdx+1)<<32)'

	# A new file that is mapped has holes instead of space on the disk. A store
	# into a hole of a full disk is SIGBUS, which ends the process. With its space
	# taken beforehand it is an error, and Badger tries again later. The empty
	# file goes, or they would pile up, and one that is a log stops the next
	# opening.
	change z/file.go \
		'		if err := fd.Truncate(int64(sz)); err != nil {
' \
		'		if err := allocate(fd, int64(sz)); err != nil {
			_ = fd.Close()
			_ = os.Remove(filename)
'
	change z/file.go \
		'		return nil, errors.Join(err, fmt.Errorf("while mmapping %s with size: %d", fd.Name(), fileSize))
' \
		'		_ = fd.Close()
		if rerr == NewFile {
			_ = os.Remove(filename)
		}
		return nil, errors.Join(err, fmt.Errorf("while mmapping %s with size: %d", filename, fileSize))
'
	change z/mmap_linux.go \
		'// msync writes any modified data to persistent storage.
' \
		'// allocate gives the empty file a size, and as much space on the disk. Where
// the file system cannot do that, the file has holes.
func allocate(fd *os.File, size int64) error {
	for {
		switch err := unix.Fallocate(int(fd.Fd()), 0, 0, size); err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EOPNOTSUPP, unix.ENOSYS:
			return fd.Truncate(size)
		default:
			return &os.PathError{Op: "fallocate", Path: fd.Name(), Err: err}
		}
	}
}

// msync writes any modified data to persistent storage.
'
}

patch_badger() {
	# The error of a table that could not be written is looked at before there is
	# one. The merge goes on without the table, removes those that it was made
	# of, and everything in it is gone.
	change levels.go \
		'			defer inflightBuilders.Done(err)
' \
		'			defer func() { inflightBuilders.Done(err) }()
'
	# Another part of the merge that meets the error takes it out of its channel
	# and ends: then nobody is left to tell that the merge has failed. It stays
	# there, and one more than fits is not waited for.
	change y/y.go \
		'			if err != nil {
				return err
			}
		}
	}
}
' \
		'			if err != nil {
				t.keep(err)
				return err
			}
		}
	}
}

// keep lets everyone see err.
func (t *Throttle) keep(err error) {
	select {
	case t.errCh <- err:
	default:
	}
}

// CatchFault makes an error of a fault in the function that defers what it returns.
func CatchFault(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		p := recover()
		if p == nil {
			return
		}
		fault, ok := p.(interface {
			error
			Addr() uintptr
		})
		if !ok {
			panic(p)
		}
		*err = fault
	}
}
'
	change y/y.go \
		'	"reflect"
	"strconv"
' \
		'	"reflect"
	"runtime/debug"
	"strconv"
'
	change y/y.go \
		'		t.errCh <- err
	}
	select {
	case <-t.ch:' \
		'		t.keep(err)
	}
	select {
	case <-t.ch:'
	# What was begun has to be waited for, and its tables removed.
	change levels.go \
		'			s.kv.opt.Errorf("cannot start subcompaction: %+v", err)
			return nil, nil, err
' \
		'			s.kv.opt.Errorf("cannot start subcompaction: %+v", err)
			break
'
	# Tables are mapped: where the disk cannot read one, a merge would end the
	# process. It fails instead, and says why.
	change levels.go \
		'			defer inflightBuilders.Done(nil)
			it := table.NewMergeIterator(newIterator(), false)
' \
		'			var err error
			defer func() { inflightBuilders.Done(err) }()
			defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
			defer func() {
				if p := recover(); p != nil {
					fault, ok := p.(interface {
						error
						Addr() uintptr
					})
					if !ok {
						panic(p)
					}
					s.kv.opt.Errorf("While merging tables: %v", fault)
					err = fault
				}
			}()
			it := table.NewMergeIterator(newIterator(), false)
'
	change levels.go \
		'	isPresent := func() bool {
		ti := table.NewIterator(0)
' \
		'	isPresent := func() (present bool) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() {
			if recover() != nil {
				present = true // the merge tells
			}
		}()
		ti := table.NewIterator(0)
'
	# Everyone looks at the indexes, which are small: they are kept in memory.
	change table/table.go \
		'	data := t.readNoFail(t.indexStart, t.indexLen)
' \
		'	data := append([]byte(nil), t.readNoFail(t.indexStart, t.indexLen)...)
'
	change levels.go \
		'	"os"
	"sort"
' \
		'	"os"
	"runtime/debug"
	"sort"
'
	# So it is where a page of a new file cannot be had to be written to: a commit
	# fails, or the flush of a memtable, which is tried again.
	change db.go \
		'func (db *DB) writeToLSM(b *request) error {
' \
		'func (db *DB) writeToLSM(b *request) (rerr error) {
	defer y.CatchFault(&rerr)()
'
	change table/table.go \
		'	written := bd.Copy(mf.Data)
	y.AssertTrue(written == len(mf.Data))
' \
		'	if err := fill(mf.Data, bd); err != nil {
		_ = mf.Delete()
		return nil, y.Wrapf(err, "while writing %s", fname)
	}
'
	change table/table.go \
		'// OpenTable assumes file has only one table and opens it. Takes ownership of fd upon function
' \
		'func fill(data []byte, bd buildData) (err error) {
	defer y.CatchFault(&err)()
	written := bd.Copy(data)
	y.AssertTrue(written == len(data))
	return nil
}

// OpenTable assumes file has only one table and opens it. Takes ownership of fd upon function
'
	# Whoever has waited five seconds for a memtable which cannot be flushed is told
	# so, instead of waiting for as long as that lasts.
	change db.go \
		'	flushCond *sync.Cond
' \
		'	flushCond *sync.Cond
	flushErr  error // why the flush has failed again and again; guarded by lock
'
	change db.go \
		'				return errNoRoom
			}
			db.flushCond.Wait()
' \
		'				return errNoRoom
			}
			if db.flushErr != nil {
				mt.DecrRef()
				return y.Wrapf(db.flushErr, "cannot flush a mem table")
			}
			db.flushCond.Wait()
'
	change db.go \
		'		for {
			if err := db.handleMemTableFlush(mt, nil); err != nil {
				// Encountered error. Retry indefinitely.
				db.opt.Errorf("error flushing memtable to disk: %v, retrying", err)
' \
		'		for failed := 1; ; failed++ {
			if err := db.handleMemTableFlush(mt, nil); err != nil {
				// Encountered error. Retry indefinitely.
				db.opt.Errorf("error flushing memtable to disk: %v, retrying", err)
				if failed == 5 {
					db.lock.Lock()
					db.flushErr = err
					db.lock.Unlock()
					db.flushCond.Broadcast()
				}
'
	change db.go \
		'			// Update s.imm. Need a lock.
			db.lock.Lock()
' \
		'			// Update s.imm. Need a lock.
			db.lock.Lock()
			db.flushErr = nil
'
	# A table that was not written goes, or each new try would leave one.
	change table/table.go \
		'		return nil, y.Wrapf(err, "while calling msync on %s", fname)
' \
		'		_ = mf.Delete()
		return nil, y.Wrapf(err, "while calling msync on %s", fname)
'
	# A drop of prefixes that could not merge has not dropped them.
	change levels.go \
		'					opt.Warningf("While compacting level 0: %v", err)
					return nil
' \
		'					opt.Warningf("While compacting level 0: %v", err)
					return err
'
	# The next memtable is made before the last one is given away: if there is no
	# space for it, the engine would be left without one, and end the process.
	change db.go \
		'	if !db.mt.isFull() {
		return nil
	}

	for {
		select {
		case db.flushChan <- db.mt:
' \
		'	if !db.mt.isFull() {
		return nil
	}
	mt, err := db.newMemTable()
	if err != nil {
		return y.Wrapf(err, "cannot create new mem table")
	}

	for {
		select {
		case db.flushChan <- db.mt:
'
	change db.go \
		'			db.imm = append(db.imm, db.mt)
			db.mt, err = db.newMemTable()
			if err != nil {
				return y.Wrapf(err, "cannot create new mem table")
			}
' \
		'			db.imm = append(db.imm, db.mt)
			db.mt = mt
'
	change db.go \
		'			if db.IsClosed() {
				return errNoRoom
			}
' \
		'			if db.IsClosed() {
				mt.DecrRef()
				return errNoRoom
			}
'
	change db.go \
		'func (db *DB) ensureRoomForWrite() error {
	var err error
' \
		'func (db *DB) ensureRoomForWrite() (rerr error) {
	defer y.CatchFault(&rerr)()
'
	# The same where prefixes are dropped; and the memtable that could not be
	# flushed stays in its place. Everyone waits meanwhile: where nothing of what is
	# dropped is in memory, nothing is flushed.
	change db.go \
		'	db.imm = append(db.imm, db.mt)
	for _, memtable := range db.imm {
		if memtable.sl.Empty() {
			memtable.DecrRef()
			continue
		}
		db.opt.Debugf("Flushing memtable")
		if err := db.handleMemTableFlush(memtable, filtered); err != nil {
			db.opt.Errorf("While trying to flush memtable: %v", err)
			return err
		}
		memtable.DecrRef()
	}
	db.stopCompactions()
	defer db.startCompactions()
	db.imm = db.imm[:0]
	db.mt, err = db.newMemTable()
	if err != nil {
		return y.Wrapf(err, "cannot create new mem table")
	}
' \
		'	if len(db.imm) > 0 || db.mt.hasAnyPrefix(filtered) {
		mt, err := db.newMemTable()
		if err != nil {
			return y.Wrapf(err, "cannot create new mem table")
		}
		for _, memtable := range append(db.imm, db.mt) {
			if memtable.sl.Empty() {
				memtable.DecrRef()
				continue
			}
			db.opt.Debugf("Flushing memtable")
			if err := db.handleMemTableFlush(memtable, filtered); err != nil {
				db.opt.Errorf("While trying to flush memtable: %v", err)
				mt.DecrRef()
				return err
			}
			memtable.DecrRef()
		}
		db.imm = db.imm[:0]
		db.mt = mt
	}
	db.stopCompactions()
	defer db.startCompactions()
'
	change levels.go \
		'func containsAnyPrefixes(table *table.Table, listOfPrefixes [][]byte) bool {
' \
		'func (mt *memTable) hasAnyPrefix(prefixes [][]byte) bool {
	it := mt.sl.NewIterator()
	defer it.Close()
	for _, p := range prefixes {
		it.Seek(y.KeyWithTs(p, math.MaxUint64))
		if it.Valid() && bytes.HasPrefix(it.Key(), p) {
			return true
		}
	}
	return false
}

func containsAnyPrefixes(table *table.Table, listOfPrefixes [][]byte) bool {
'
	# A drop waits until every memtable is a table, which may be for ever; who wants to
	# drop asks before.
	change db.go \
		'func (db *DB) prepareToDrop() (func(), error) {
' \
		'func (db *DB) Flushing() bool {
	db.lock.RLock()
	defer db.lock.RUnlock()
	return len(db.imm) > 0 || db.lc.levels[0].numTables() >= db.opt.NumLevelZeroTablesStall
}

func (db *DB) prepareToDrop() (func(), error) {
'
	# The files of the tables that go are removed behind the drop: it is waited for.
	change db.go \
		'	flushCond *sync.Cond
' \
		'	flushCond *sync.Cond
	removing sync.WaitGroup // tables that a drop has let go of
'
	change db.go \
		'	// Drop prefixes from the levels.
' \
		'	letGo := db.lc.holdTables()
	defer db.removing.Go(letGo)

	// Drop prefixes from the levels.
'
	change db.go \
		'	db.stopMemoryFlush()
	db.stopCompactions()

	// Force Compact L0
' \
		'	db.stopMemoryFlush()
	db.stopCompactions()
	db.removing.Wait()

	// Force Compact L0
'
	change levels.go \
		'func (s *levelsController) dropPrefixes(' \
		'func (s *levelsController) holdTables() (letGo func()) {
	var held []*table.Table
	for _, l := range s.levels {
		l.RLock()
		for _, t := range l.tables {
			t.IncrRef()
			held = append(held, t)
		}
		l.RUnlock()
	}
	return func() {
		if err := decrRefs(held); err != nil {
			s.kv.opt.Errorf("While removing tables: %v", err)
		}
	}
}

func (s *levelsController) dropPrefixes('
	# And where nothing of it is in level 0, that is not merged.
	change levels.go \
		'			size := len(l.tables)
			l.RUnlock()

			if size > 0 {
				cp := compactionPriority{
' \
		'			found := false
			for _, t := range l.tables {
				found = found || containsAnyPrefixes(t, prefixes)
			}
			l.RUnlock()

			if found {
				cp := compactionPriority{
'
	# Who reads keeps the memtables that were there, and their logs, which are
	# removed when the last one lets go. A newer log must not go first: the merge may
	# have taken its deletions out of the tables, and after a crash in between the
	# older log brings back what was deleted.
	change db.go \
		'		for _, tbl := range tables {
			tbl.DecrRef()
		}
' \
		'		for i := len(tables) - 1; i >= 0; i-- { // the oldest is the last
			tables[i].DecrRef()
		}
'
	change table/merge_iterator.go \
		'	err1 := mi.left.iter.Close()
	err2 := mi.right.iter.Close()
' \
		'	err2 := mi.right.iter.Close() // the older ones
	err1 := mi.left.iter.Close()
'
	# Tables of level 0 are not merged among themselves: that also drops deletions if
	# nothing below has such keys, while what was deleted may be in a table of level
	# 0 that is not among them, or on its way down.
	change levels.go \
		'	if ok := s.fillTablesL0ToLbase(cd); ok {
		return true
	}
	return s.fillTablesL0ToL0(cd)
' \
		'	return s.fillTablesL0ToLbase(cd)
'
	# Twice the size of a memtable is never written; its arena has the same bound.
	change memtable.go \
		'mt.wal.open(filepath, flags, 2*db.opt.MemTableSize)' \
		'mt.wal.open(filepath, flags, arenaSize(db.opt))'
	# Nothing is written to the value log.
	change value.go \
		'os.O_RDWR|os.O_CREATE|os.O_EXCL, 2*vlog.opt.ValueLogFileSize)' \
		'os.O_RDWR|os.O_CREATE|os.O_EXCL, vlog.opt.ValueLogFileSize)'
	# A merge that has failed is tried again after a second, not twenty times in
	# it: on a full disk that takes a whole processor.
	change levels.go \
		'			s.kv.opt.Warningf("While running doCompact: %v\n", err)
' \
		'			s.kv.opt.Warningf("While running doCompact: %v\n", err)
			select {
			case <-time.After(time.Second):
			case <-lc.HasBeenClosed():
			}
'
	# A change of the MANIFEST that was not written is not kept in memory, where
	# it would fail every merge to come, and what there is of it in the file goes,
	# or the next change would be behind garbage. If that fails too, the next one
	# begins with a new file.
	change manifest.go \
		'	// Used to track the current state of the manifest, used when rewriting.
	manifest Manifest
' \
		'	// Used to track the current state of the manifest, used when rewriting.
	manifest Manifest
	unsure   bool
'
	change manifest.go \
		'func (mf *manifestFile) addChanges(changesParam []*pb.ManifestChange, opt Options) error {
' \
		'func (mf *manifestFile) addChanges(changesParam []*pb.ManifestChange, opt Options) (rerr error) {
'
	change manifest.go \
		'	if err := applyChangeSet(&mf.manifest, &changes, opt); err != nil {
		return err
	}
' \
		'	if mf.unsure { // nobody knows what the file says
		if err := mf.rewrite(); err != nil {
			return err
		}
	}
	end, err := mf.fp.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	before := mf.manifest.clone(opt)
	before.Creations, before.Deletions = mf.manifest.Creations, mf.manifest.Deletions
	defer func() {
		if rerr == nil {
			return
		}
		mf.manifest = before
		err := mf.fp.Truncate(end)
		if err == nil {
			_, err = mf.fp.Seek(end, io.SeekStart)
		}
		if err == nil {
			err = syncFunc(mf.fp)
		}
		mf.unsure = mf.unsure || err != nil
	}()
	if err := applyChangeSet(&mf.manifest, &changes, opt); err != nil {
		return err
	}
'
	# Each change is appended and safe before the MANIFEST is made smaller: if that
	# fails, the one that is there is as good. The old file stays open until the
	# new one is in its place.
	change manifest.go \
		'		if err := mf.rewrite(); err != nil {
			return err
		}
	} else {
		var lenCrcBuf [8]byte
		binary.BigEndian.PutUint32(lenCrcBuf[0:4], uint32(len(buf)))
		binary.BigEndian.PutUint32(lenCrcBuf[4:8], crc32.Checksum(buf, y.CastagnoliCrcTable))
		buf = append(lenCrcBuf[:], buf...)
		if _, err := mf.fp.Write(buf); err != nil {
			return err
		}
	}

	return syncFunc(mf.fp)
' \
		'		defer func() {
			if rerr == nil {
				if err := mf.rewrite(); err != nil {
					opt.Warningf("While rewriting the MANIFEST: %v", err)
				}
			}
		}()
	}
	var lenCrcBuf [8]byte
	binary.BigEndian.PutUint32(lenCrcBuf[0:4], uint32(len(buf)))
	binary.BigEndian.PutUint32(lenCrcBuf[4:8], crc32.Checksum(buf, y.CastagnoliCrcTable))
	buf = append(lenCrcBuf[:], buf...)
	if _, err := mf.fp.Write(buf); err != nil {
		return err
	}

	return syncFunc(mf.fp)
'
	change manifest.go \
		'	// In Windows the files should be closed before doing a Rename.
	if err := mf.fp.Close(); err != nil {
		return err
	}
	fp, netCreations, err := helpRewrite(mf.directory, &mf.manifest, mf.externalMagic)
	if err != nil {
		return err
	}
' \
		'	fp, netCreations, err := helpRewrite(mf.directory, &mf.manifest, mf.externalMagic)
	if fp == nil {
		return err
	}
	_ = mf.fp.Close()
'
	change manifest.go \
		'	mf.manifest.Deletions = 0

	return nil
' \
		'	mf.manifest.Deletions = 0
	mf.unsure = err != nil // whether the folder has the new one

	return err
'
	change manifest.go \
		'	// In Windows the files should be closed before doing a Rename.
	if err = fp.Close(); err != nil {
		return nil, 0, err
	}
	manifestPath := filepath.Join(dir, ManifestFilename)
	if err := os.Rename(rewritePath, manifestPath); err != nil {
		return nil, 0, err
	}
	fp, err = y.OpenExistingFile(manifestPath, 0)
	if err != nil {
		return nil, 0, err
	}
	if _, err := fp.Seek(0, io.SeekEnd); err != nil {
		fp.Close()
		return nil, 0, err
	}
	if err := syncDir(dir); err != nil {
		fp.Close()
		return nil, 0, err
	}

	return fp, netCreations, nil
' \
		'	manifestPath := filepath.Join(dir, ManifestFilename)
	if err := os.Rename(rewritePath, manifestPath); err != nil {
		fp.Close()
		return nil, 0, err
	}
	// What the folder says after a crash is one or the other, and each has all
	// changes until now; those to come are in the new one, which fp is.
	if err := syncDir(dir); err != nil {
		return fp, netCreations, err
	}

	return fp, netCreations, nil
'
}

# GOFLAGS may name the very file that is to be made.
export GOFLAGS= GOWORK=off
mkdir -p "$out"
tmp=$(mktemp -d "$out/.new.XXXXXX")
trap 'chmod -R u+w "$tmp" && rm -rf "$tmp"' EXIT
cp go.mod "$tmp/go.mod"
cp go.sum "$tmp/go.sum"

for name in ristretto badger; do
	case $name in
	ristretto) module=github.com/dgraph-io/ristretto/v2 ;;
	badger) module=github.com/dgraph-io/badger/v4 ;;
	esac
	find_module() { "$go" list -m -f '{{.Version}} {{.Dir}}' "$module"; }
	read -r version dir < <(find_module) || die "$module is not in go.mod: if nothing needs it any more, remove it from $self"
	if [ -z "$dir" ]; then
		"$go" mod download "$module" || die "fetch $module $version"
		read -r version dir < <(find_module)
	fi
	# Another version of the module or of this script gets a folder of its own.
	copy=$out/$name-$version-$(cksum <$self | cut -d ' ' -f 1)
	if [ ! -d "$copy" ]; then
		copying=$tmp/$name
		cp -R "$dir" "$copying"
		chmod -R u+w "$copying"
		# Nobody is to find its tests among ours.
		find "$copying" -name '*_test.go' -delete
		"patch_$name"
		# Another run may have been faster: then its copy is as good.
		mv -T "$copying" "$copy" 2>/dev/null || [ -d "$copy" ] || die "write $copy"
	fi
	"$go" mod edit -replace="$module@$version=./$copy" "$tmp/go.mod"
done

for f in go.sum go.mod; do
	# The same text keeps its time, so that nothing is built again for it.
	cmp -s "$tmp/$f" "$out/$f" || mv -f "$tmp/$f" "$out/$f"
done
