package modem

// SetTree makes m look for its port in other folders than /sys and /dev. It must
// be called before Run.
func (m *Modem) SetTree(sys, dev string) { m.tree = serialTree{sys: sys, dev: dev} }
