// Package powercut cuts the power of a store, in tests only: a disk with a
// volatile write cache, real ext4 on it, and a program that writes down what it
// was promised. docs/durability.md says what this shows and what it does not.
// The library that serves the disk does not build for 32-bit processors.
package powercut
