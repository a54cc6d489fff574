package configs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"runtime"
)

// MaxFile bounds a configuration file, in bytes.
const MaxFile = 1 << 20

// Load reads the file at path over the defaults. The error is of type Faults
// and has every fault at once. The warnings are things that are allowed and
// probably not meant; they come with an error too.
//
// Relative names of files for secrets and certificates are taken from the folder
// of the configuration, all other relative paths from the working folder.
func Load(path string) (*Config, []string, error) {
	data, open, err := readConfig(path)
	if err != nil {
		return nil, nil, Faults{{File: path, Text: err.Error()}}
	}
	return load(path, data, open, realOutside)
}

// Parse is Load of a text that is not in the file at path yet.
func Parse(path string, text []byte) (*Config, []string, error) {
	return load(path, text, false, realOutside)
}

// load is Load with everything that it takes from outside. open says that
// every user of the machine can read the file.
func load(path string, data []byte, open bool, world outside) (*Config, []string, error) {
	c := Default()
	c.source = &source{file: path, lines: map[string]int{}, faulty: map[string]bool{}}
	d := &decoder{source: c.source, outside: world}
	inFile := func(line int, text string) { d.fault("", line, text) }
	root, whole := parseDocument(data, inFile)
	c.source.partial = !whole
	d.table(root, reflect.ValueOf(c).Elem(), "")
	if len(d.faults) == 0 {
		secondOpinion(data, inFile)
	}
	for i := range c.Bridges {
		for j := range c.Bridges[i].Routes {
			r := &c.Bridges[i].Routes[j]
			if r.Name == "" {
				r.Name = r.Direction + " " + r.Topic
			}
		}
	}
	c.boundQueues()
	if d.secret && open {
		d.warn("", 0, "it has a password in it and every user of this machine can read it; run chmod 640, "+
			"or keep the password in a file or the environment")
	}
	k := c.check()
	k.certificates(world)
	faults, remarks := append(d.faults, k.faults...), append(d.remarks, k.remarks...)
	remarks.sort()
	var warnings []string
	for _, r := range remarks {
		warnings = append(warnings, r.Error())
	}
	if len(faults) > 0 {
		faults.sort()
		return nil, warnings, faults
	}
	// The default of one is made of the other; a smaller one that is written is a fault.
	c.Limits.MaxRetainedWaiting = max(c.Limits.MaxRetainedWaiting, c.Limits.MaxRetained)
	return c, warnings, nil
}

// boundQueues lowers the default bound of the bridges' queues to that of the store,
// where that is less. It does not share the store among them: a bridge that is added
// would lower the bound of the others, and their backlog would go.
func (c *Config) boundQueues() {
	for i := range c.Bridges {
		if q := &c.Bridges[i].Queue; !c.source.written(fmt.Sprintf("bridge[%d].queue.max_bytes", i)) {
			q.MaxBytes = min(q.MaxBytes, c.Storage.MaxBytes)
		}
	}
}

// readConfig reads a file or a pipe, and tells whether every user can read it.
func readConfig(path string) (data []byte, open bool, err error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, errors.New("there is no such file; check the path after -c")
	case errors.Is(err, fs.ErrPermission):
		return nil, false, errors.New("may not be read by this user; run this with sudo, or, if it is the gateway that may not, give the file to its group: chgrp holdfast and chmod 640")
	case err != nil:
		return nil, false, fmt.Errorf("cannot be opened: %w; check the path after -c", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		if info.IsDir() {
			return nil, false, errors.New("is a folder; give the file in it")
		}
		open = info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 && runtime.GOOS != "windows"
	}
	data, err = io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, false, fmt.Errorf("cannot be read: %w; check the disk", err)
	}
	if len(data) > MaxFile {
		return nil, false, fmt.Errorf("is larger than %v; this is no configuration", Size(MaxFile))
	}
	return data, open, nil
}

// Validate reports every fault of c at once, as Faults.
func (c *Config) Validate() error {
	if k := c.check(); len(k.faults) > 0 {
		k.faults.sort()
		return k.faults
	}
	return nil
}
