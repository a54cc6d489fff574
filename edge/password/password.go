// Package password makes and checks the hashes of passwords that stand in the
// configuration: argon2id (RFC 9106) in the usual form of one line,
//
//	$argon2id$v=19$m=9216,t=4,p=1$SALT$KEY
//
// with SALT and KEY in base64 without padding. Whoever reads the file does not
// have the passwords, and trying them out costs memory and time for each.
package password

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// What New takes: 9 MiB, of which a board with 512 MB has enough for one login
// at a time, and four passes, which makes up for it (RFC 9106, 4).
const (
	newMemory = 9 << 10 // KiB
	newPasses = 4
	newLanes  = 1
	saltBytes = 16
	keyBytes  = 32
)

// The bounds of a hash that is accepted. A login costs as much memory as its
// hash says, so one from elsewhere must not say anything it likes.
const (
	MaxMemory = 64 << 10 // KiB
	MaxPasses = 16
	MaxLanes  = 4
	// maxWork bounds passes times memory, in KiB: the time.
	maxWork = 256 << 10
)

// Longest is the longest password that New takes, in bytes: what CONNECT has
// room for (MQTT 3.1.1, 3.1.3.5).
const Longest = 65535

// Hash is one parsed hash; the zero Hash matches nothing.
type Hash struct {
	memory, passes uint32
	lanes          uint8
	salt, key      []byte
}

var encoding = base64.RawStdEncoding.Strict()

// errForm never repeats the text: it may be a password that was meant to be hidden.
var errForm = errors.New("this is no argon2id hash")

// Parse reads a hash. What it refuses is not argon2id of version 19, or beyond
// the bounds.
func Parse(s string) (Hash, error) {
	f := strings.Split(s, "$")
	if len(f) != 6 || f[0] != "" || f[1] != "argon2id" {
		return Hash{}, errForm
	}
	if f[2] != "v=19" {
		return Hash{}, errors.New("argon2id of another version than 19 is not known")
	}
	var h Hash
	costs := strings.Split(f[3], ",")
	if len(costs) != 3 {
		return Hash{}, errForm
	}
	for i, c := range []struct {
		name        string
		least, most uint64
		set         func(uint64)
	}{
		{"m", 8, MaxMemory, func(n uint64) { h.memory = uint32(n) }},
		{"t", 1, MaxPasses, func(n uint64) { h.passes = uint32(n) }},
		{"p", 1, MaxLanes, func(n uint64) { h.lanes = uint8(n) }},
	} {
		text, ok := strings.CutPrefix(costs[i], c.name+"=")
		n, err := strconv.ParseUint(text, 10, 32)
		if !ok || err != nil || text[0] == '0' || text[0] == '+' {
			return Hash{}, errForm
		}
		if n < c.least || n > c.most {
			return Hash{}, fmt.Errorf("the hash has %s=%d, which may be %d to %d", c.name, n, c.least, c.most)
		}
		c.set(n)
	}
	if h.memory < 8*uint32(h.lanes) {
		return Hash{}, errors.New("the hash has less than 8 KiB for each lane")
	}
	if h.memory*h.passes > maxWork {
		return Hash{}, fmt.Errorf("the hash takes too long: m times t may be %d", maxWork)
	}
	var err, err2 error
	h.salt, err = encoding.DecodeString(f[4])
	h.key, err2 = encoding.DecodeString(f[5])
	switch {
	case err != nil || err2 != nil || strings.ContainsAny(s, "\r\n"):
		return Hash{}, errForm
	case len(h.salt) < 8 || len(h.salt) > 64 || len(h.key) < 16 || len(h.key) > 64:
		return Hash{}, errors.New("the hash has a salt that is not of 8 to 64 bytes, or a key that is not of 16 to 64")
	}
	return h, nil
}

// Cost compares hashes by how long one takes: memory times passes.
func (h Hash) Cost() uint64 { return uint64(h.memory) * uint64(h.passes) }

// Decoy takes as long as h and matches nothing.
func (h Hash) Decoy() Hash {
	h.key = make([]byte, len(h.key))
	return h
}

// Matches reports whether the hash is one of that password. It takes the memory
// and the time that the hash says, with one goroutine a lane.
func (h Hash) Matches(password []byte) bool {
	if len(h.key) == 0 {
		return false
	}
	key := argon2.IDKey(password, h.salt, h.passes, h.memory, h.lanes, uint32(len(h.key)))
	return subtle.ConstantTimeCompare(key, h.key) == 1
}

// String is the form that Parse reads.
func (h Hash) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.passes, h.lanes,
		encoding.EncodeToString(h.salt), encoding.EncodeToString(h.key))
}

// New makes the hash of a password, with a salt of its own.
func New(password []byte) (Hash, error) {
	switch {
	case len(password) == 0:
		return Hash{}, errors.New("the password is empty")
	case len(password) > Longest:
		return Hash{}, fmt.Errorf("the password has %d bytes; MQTT has room for %d", len(password), Longest)
	}
	h := Hash{memory: newMemory, passes: newPasses, lanes: newLanes, salt: make([]byte, saltBytes)}
	rand.Read(h.salt) // never fails
	h.key = argon2.IDKey(password, h.salt, h.passes, h.memory, h.lanes, keyBytes)
	return h, nil
}
