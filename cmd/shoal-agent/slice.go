package main

// intoSlice puts a process into the slice of a user.
func intoSlice(uid, pid int) error { return nil }

func taskMain(args []string) int { return 2 }
