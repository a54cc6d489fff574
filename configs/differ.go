package configs

import "reflect"

// NeedsRestart reports whether c and d say different things outside of [access]
// and [[bridge]], which a running gateway takes over. Both must be resolved.
func (c *Config) NeedsRestart(d *Config) bool {
	a, b := *c, *d
	a.source, b.source = nil, nil
	a.Access, b.Access = Access{}, Access{}
	a.Bridges, b.Bridges = nil, nil
	return !reflect.DeepEqual(a, b)
}

// OnlyDefaults tells whether nothing is set in c but where its data and its socket
// are, as in the configuration that comes with a package.
func (c *Config) OnlyDefaults() bool {
	d := *c
	d.source = nil
	want := Default()
	want.Gateway.DataDir, want.Console.Socket = c.Gateway.DataDir, c.Console.Socket
	return reflect.DeepEqual(&d, want)
}
