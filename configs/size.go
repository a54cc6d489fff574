package configs

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes.
type Size int64

// The units of a Size. KB, MB, GB and TB are powers of 1000.
const (
	KiB Size = 1 << (10 * (iota + 1))
	MiB
	GiB
	TiB
)

// units is in the order in which a size is printed: the largest first that
// divides it.
var units = []struct {
	name string
	size Size
}{
	{"TiB", TiB}, {"TB", 1e12}, {"GiB", GiB}, {"GB", 1e9}, {"MiB", MiB}, {"MB", 1e6}, {"KiB", KiB}, {"KB", 1e3}, {"B", 1},
}

var errSize = errors.New(`a size is a number of bytes, or a string like "512MB" or "1GiB"`)

// ParseSize reads "1048576", "512MB" or "1.5GiB"; a space before the unit and
// the case of its letters do not matter.
func ParseSize(s string) (Size, error) {
	number := strings.TrimRight(s, "BbKkMmGgTtIi")
	unit, size := strings.ToUpper(s[len(number):]), Size(1)
	if unit != "" {
		size = 0
		for _, u := range units {
			if strings.ToUpper(u.name) == unit {
				size = u.size
			}
		}
	}
	number = strings.TrimSpace(number)
	if size == 0 || number == "" || strings.Trim(number, "0123456789.") != "" {
		return 0, errSize
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n > math.MaxInt64/int64(size) {
			return 0, errSize
		}
		return Size(n) * size, nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || f*float64(size) >= math.MaxInt64 {
		return 0, errSize
	}
	return Size(f * float64(size)), nil
}

// String is the size in the largest unit that gives a whole number.
func (s Size) String() string {
	for _, u := range units {
		if s >= u.size && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}
