package shoal

// machineMoves is how a machine's state may move. Failed is reachable from any state
// but gone, with a reason; a failed machine can only be deleted, a retry is a new machine.
var machineMoves = map[MachineState][]MachineState{
	MachineRequested: {MachineBooting, MachineFailed, MachineGone},
	MachineBooting:   {MachineReady, MachineStopping, MachineFailed, MachineGone},
	MachineReady:     {MachineStopping, MachineFailed, MachineGone, MachineBooting},
	MachineStopping:  {MachineStopped, MachineFailed, MachineGone},
	MachineStopped:   {MachineBooting, MachineFailed, MachineGone},
	MachineFailed:    {MachineGone},
	MachineGone:      nil,
}

var sessionMoves = map[SessionState][]SessionState{
	SessionWaiting:      {SessionActive, SessionEnded},
	SessionActive:       {SessionDisconnected, SessionEnded},
	SessionDisconnected: {SessionActive, SessionEnded},
	SessionEnded:        nil,
}

var attemptMoves = map[JobState][]JobState{
	JobQueued:   {JobStarting, JobCancelled},
	JobStarting: {JobRunning, JobSucceeded, JobFailed, JobCancelled, JobTimedOut, JobLost, JobPreempted},
	JobRunning:  {JobSucceeded, JobFailed, JobCancelled, JobTimedOut, JobLost, JobPreempted},
}

// appMoves is how an app's state may move. One whose machine went before it ran waits for another.
var appMoves = map[AppState][]AppState{
	AppWaiting:  {AppStarting, AppEnded, AppFailed},
	AppStarting: {AppRunning, AppWaiting, AppEnded, AppFailed},
	AppRunning:  {AppEnded, AppFailed},
	AppEnded:    nil,
	AppFailed:   nil,
}

// CanMove reports whether a machine may go from one state to another.
func (s MachineState) CanMove(to MachineState) bool { return contains(machineMoves[s], to) }

// CanMove reports whether a session may go from one state to another.
func (s SessionState) CanMove(to SessionState) bool { return contains(sessionMoves[s], to) }

// CanMove reports whether an app may go from one state to another.
func (s AppState) CanMove(to AppState) bool { return contains(appMoves[s], to) }

// CanMove reports whether an attempt may go from one state to another.
func (s JobState) CanMove(to JobState) bool { return contains(attemptMoves[s], to) }

func contains[T comparable](list []T, v T) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}
