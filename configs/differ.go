package configs

import "reflect"

// DiffersBesideAccess reports whether c and d say different things outside of
// [access]. Both must be resolved.
func (c *Config) DiffersBesideAccess(d *Config) bool {
	a, b := *c, *d
	a.source, b.source = nil, nil
	a.Access, b.Access = Access{}, Access{}
	return !reflect.DeepEqual(a, b)
}
