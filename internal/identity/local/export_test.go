package local

import "crypto/rand"

// HashWith makes a hash with given parameters, as an older version would have.
func HashWith(memory, time uint32, threads uint8, password string) string {
	p := params{memory: memory, time: time, threads: threads}
	salt := make([]byte, saltBytes)
	rand.Read(salt)
	return p.encode(salt, p.sum(password, salt))
}

// Decode is decode, for fuzzing.
func Decode(s string) error {
	_, _, _, err := decode(s)
	return err
}
