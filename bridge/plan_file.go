package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

// A plan is kept in one small file, that is written seldom: an SD card wears out. It
// is written beside, synced and renamed, so a crash leaves it as it was before or
// after a write. What a crash loses is what was counted since, at most half a percent
// of the plan; what a counter outside the process tells is not lost, as long as it
// goes on.

const (
	maxPlanFile  = 64 << 10
	maxPlanParts = 64
)

// recallPlan reads the file. One that cannot be read is set aside: the gateway
// starts, and counts from nothing.
func recallPlan(path string, log *slog.Logger) planRecord {
	if path == "" {
		return planRecord{}
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return planRecord{}
	}
	var r planRecord
	if err == nil {
		var raw []byte
		raw, err = io.ReadAll(io.LimitReader(f, maxPlanFile+1))
		f.Close()
		if err == nil {
			r, err = parsePlan(raw)
		}
	}
	if err != nil {
		aside := path + ".unreadable"
		log.Warn("what was counted for the data plan cannot be read: it is set aside, and the count begins anew", slog.String("file", aside), slog.Any("error", err))
		_ = os.Rename(path, aside)
		return planRecord{}
	}
	return r
}

func parsePlan(raw []byte) (r planRecord, err error) {
	if len(raw) > maxPlanFile {
		return r, fmt.Errorf("it has more than %d bytes", maxPlanFile)
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return planRecord{}, err
	}
	if len(r.Parts) > maxPlanParts || r.Used > 1<<62 {
		return planRecord{}, errors.New("no gateway has written this")
	}
	return r, nil
}

func (p *Plan) save(rec planRecord) {
	if p.file == "" {
		return
	}
	raw, err := json.Marshal(rec)
	if err == nil {
		err = replaceFile(p.file, raw)
	}
	if err != nil && !p.unwritten {
		p.log.Warn("what was counted for the data plan cannot be written down, and a restart would forget it: check the disk", slog.Any("error", err))
	}
	p.unwritten = err != nil
}

func replaceFile(path string, raw []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".plan-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(raw); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
