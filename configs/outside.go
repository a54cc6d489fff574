package configs

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
)

// maxSecretFile bounds a file with a password in it, in bytes.
const maxSecretFile = 64 << 10

// outside is what a configuration takes from the world around its file.
type outside struct {
	lookupEnv func(name string) (string, bool)
	// readSecret returns the content of a file, and whether every user of the
	// machine can read it.
	readSecret func(path string) (text string, open bool, err error)
	readPEM    func(path string) (text string, open bool, err error)
}

var realOutside = outside{lookupEnv: os.LookupEnv, readSecret: readSecret, readPEM: readPEM}

// maxPEM bounds a file of certificates, in bytes.
const maxPEM = 1 << 20

// variable is ${NAME}; $${NAME} is the text ${NAME} itself.
var variable = regexp.MustCompile(`\$?\$\{[A-Za-z_][A-Za-z0-9_]*\}`)

// environment returns the text of n with its variables filled in, if the field
// is one that has them.
func (d *decoder) environment(n *node, f reflect.StructField, path string) string {
	if f.Tag.Get("env") == "" {
		return n.text
	}
	return variable.ReplaceAllStringFunc(n.text, func(v string) string {
		if strings.HasPrefix(v, "$$") {
			return v[1:]
		}
		name := v[2 : len(v)-1]
		value, ok := d.outside.lookupEnv(name)
		if !ok {
			d.fault(path, n.line, fmt.Sprintf("the environment has no variable %s; set it for the gateway's process, "+
				"or write $${%[1]s} if the text itself is meant", name))
		}
		return value
	})
}

// secretFiles reads the files that fields of the struct v name.
func (d *decoder) secretFiles(v reflect.Value, path string) {
	for _, f := range fields(v.Type()) {
		key := f.Tag.Get("file")
		if key == "" {
			continue
		}
		var name string
		for _, other := range fields(v.Type()) {
			if other.Tag.Get("toml") == key {
				name = v.FieldByIndex(other.Index).String()
			}
		}
		if name == "" {
			continue
		}
		at, secret := join(path, key), v.FieldByIndex(f.Index)
		line := d.lines[at]
		if secret.Interface().(Secret).IsSet() {
			d.fault(at, line, fmt.Sprintf("%s is set as well; keep one of the two", f.Tag.Get("toml")))
			continue
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(d.file), name)
		}
		text, open, err := d.outside.readSecret(name)
		if err != nil {
			d.fault(at, line, fmt.Sprintf("%v; put the secret there, readable by the gateway", err))
			continue
		}
		if open {
			d.warn(at, line, fmt.Sprintf("every user of this machine can read the file; run chmod 600 %s", name))
		}
		secret.Set(reflect.ValueOf(NewSecret(text)))
	}
}

// readSecret reads a small regular file without the newline at its end.
func readSecret(path string) (string, bool, error) {
	data, open, err := readSmall(path, maxSecretFile)
	if err != nil {
		return "", false, err
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if text == "" {
		return "", false, fmt.Errorf("%s is empty", path)
	}
	return text, open, nil
}

// readPEM reads a file of certificates or a key.
func readPEM(path string) (string, bool, error) {
	data, open, err := readSmall(path, maxPEM)
	return string(data), open, err
}

// readSmall reads a regular file of at most limit bytes, and tells whether every
// user of the machine can read it.
func readSmall(path string, limit int64) ([]byte, bool, error) {
	// A pipe or a device would be waited for, or have no end.
	info, err := os.Stat(path)
	if err != nil {
		return nil, false, err
	}
	if !info.Mode().IsRegular() {
		return nil, false, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, false, err
	}
	if int64(len(data)) > limit {
		return nil, false, fmt.Errorf("%s is larger than %v", path, Size(limit))
	}
	return data, info.Mode().Perm()&0o004 != 0, nil
}
