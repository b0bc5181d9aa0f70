package tasks

import (
	"path/filepath"

	"github.com/shoal-pool/shoal"
)

// Places are the directories of tasks on a machine, beside that of the records.
type Places struct {
	Scratch string `json:"scratch"` // on the disk, passed by all: scratch directories of attempts and jobs. api.ScratchDir
	Run     string `json:"run"`     // gone with each start of the machine: /run/shoal
}

// ScratchOf is an attempt's scratch directory.
func (p Places) ScratchOf(name string) string { return filepath.Join(p.Scratch, name) }

// JobPrefix begins the names of the jobs' scratch directories.
const JobPrefix = "job-"

// JobScratch is a job's scratch directory.
func (p Places) JobScratch(job shoal.JobID) string {
	return filepath.Join(p.Scratch, JobPrefix+string(job))
}

// Files is the directory of all attempts' files. See api.TaskDir.
func (p Places) Files() string { return filepath.Join(p.Run, "tasks") }

// FilesOf is the directory of an attempt's files.
func (p Places) FilesOf(name string) string { return filepath.Join(p.Files(), name) }

// Jobs is the directory of the marks.
func (p Places) Jobs() string { return filepath.Join(p.Run, "jobs") }

// Prepared is a mark: there while the job's preparation on this machine holds.
func (p Places) Prepared(job shoal.JobID) string { return filepath.Join(p.Jobs(), string(job)) }

// Passes is the directory of package passes.
func (p Places) Passes() string { return filepath.Join(p.Run, "passes") }
