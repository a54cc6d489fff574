package holdfast

import (
	"testing"
	"unsafe"
)

func TestSizeCountsWhatUserPropertiesTake(t *testing.T) {
	m := &Message{Properties: &Properties{}}
	before := m.Size()
	m.Properties.User = make([]UserProperty, 1000)
	if grown, takes := m.Size()-before, 1000*int(unsafe.Sizeof(UserProperty{})); grown < takes {
		t.Errorf("1000 user properties count for %d bytes and take %d", grown, takes)
	}
}
