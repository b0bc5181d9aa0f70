package batchai

// The files' own structure. A field's tag is the key; old are names that it had in earlier versions.

type jobFile struct {
	Schema     ignored       `key:"$schema"`
	Location   ignored       `key:"location"`
	ID         ignored       `key:"id"`
	Name       text          `key:"name"`
	Type       ignored       `key:"type"`
	Tags       ignored       `key:"tags"`
	Properties jobProperties `key:"properties"`
}

type jobProperties struct {
	Cluster           *resourceID   `key:"cluster"`
	Experiment        ignored       `key:"experimentName"`
	NodeCount         number        `key:"nodeCount"`
	Priority          text          `key:"schedulingPriority"`
	OldPriority       text          `key:"priority"`
	StdOutErr         text          `key:"stdOutErrPathPrefix"`
	CNTK              *cntk         `key:"cntkSettings"`
	PyTorch           *pyTorch      `key:"pyTorchSettings"`
	TensorFlow        *tensorFlow   `key:"tensorFlowSettings"`
	Caffe             *caffe        `key:"caffeSettings"`
	Caffe2            *script       `key:"caffe2Settings"`
	Chainer           *processes    `key:"chainerSettings"`
	Horovod           *processes    `key:"horovodSettings"`
	CustomToolkit     *commandLine  `key:"customToolkitSettings"`
	CustomMPI         *mpiCommand   `key:"customMpiSettings"`
	Preparation       *commandLine  `key:"jobPreparation"`
	Container         *container    `key:"containerSettings"`
	Mounts            *mountVolumes `key:"mountVolumes"`
	Inputs            []inputDir    `key:"inputDirectories"`
	Outputs           []outputDir   `key:"outputDirectories"`
	Environment       []variable    `key:"environmentVariables"`
	Secrets           []secret      `key:"secrets"`
	Constraints       *constraints  `key:"constraints"`
	ToolType          ignored       `key:"toolType"`
	OutputSegment     ignored       `key:"jobOutputDirectoryPathSegment"`
	ExecutionState    ignored       `key:"executionState"`
	ExecutionInfo     ignored       `key:"executionInfo"`
	ProvisioningState ignored       `key:"provisioningState"`
	CreationTime      ignored       `key:"creationTime"`
	TransitionTime    ignored       `key:"executionStateTransitionTime"`
	ProvisioningTime  ignored       `key:"provisioningStateTransitionTime"`
}

type resourceID struct {
	ID text `key:"id"`
}

type script struct {
	At          place
	Script      text `key:"pythonScriptFilePath"`
	Interpreter text `key:"pythonInterpreterPath"`
	Args        text `key:"commandLineArgs"`
}

type processes struct {
	At          place
	Script      text   `key:"pythonScriptFilePath"`
	Interpreter text   `key:"pythonInterpreterPath"`
	Args        text   `key:"commandLineArgs"`
	Count       number `key:"processCount"`
}

type pyTorch struct {
	At          place
	Script      text   `key:"pythonScriptFilePath"`
	Interpreter text   `key:"pythonInterpreterPath"`
	Args        text   `key:"commandLineArgs"`
	Count       number `key:"processCount"`
	Backend     text   `key:"communicationBackend"`
}

type tensorFlow struct {
	At          place
	Script      text   `key:"pythonScriptFilePath"`
	Interpreter text   `key:"pythonInterpreterPath"`
	Master      text   `key:"masterCommandLineArgs"`
	Worker      text   `key:"workerCommandLineArgs"`
	Server      text   `key:"parameterServerCommandLineArgs"`
	Workers     number `key:"workerCount"`
	Servers     number `key:"parameterServerCount"`
}

type cntk struct {
	At          place
	Language    text   `key:"languageType"`
	Config      text   `key:"configFilePath"`
	Script      text   `key:"pythonScriptFilePath"`
	Interpreter text   `key:"pythonInterpreterPath"`
	Args        text   `key:"commandLineArgs"`
	Count       number `key:"processCount"`
}

type caffe struct {
	At          place
	Config      text   `key:"configFilePath"`
	Script      text   `key:"pythonScriptFilePath"`
	Interpreter text   `key:"pythonInterpreterPath"`
	Args        text   `key:"commandLineArgs"`
	Count       number `key:"processCount"`
}

type commandLine struct {
	At   place
	Line text `key:"commandLine"`
}

type mpiCommand struct {
	At    place
	Line  text   `key:"commandLine"`
	Count number `key:"processCount"`
}

type container struct {
	At     place
	Source *imageSource `key:"imageSourceRegistry"`
	Shm    text         `key:"shmSize"`
}

type imageSource struct {
	Server      text                 `key:"serverUrl"`
	Image       text                 `key:"image"`
	Credentials *registryCredentials `key:"credentials"`
}

type registryCredentials struct {
	At        place
	User      text             `key:"username"`
	Password  text             `key:"password"`
	Reference *secretReference `key:"passwordSecretReference"`
}

type secretReference struct {
	At    place
	Vault *resourceID `key:"sourceVault"`
	URL   text        `key:"secretUrl"`
}

type inputDir struct {
	At   place
	ID   text `key:"id"`
	Path text `key:"path"`
}

type outputDir struct {
	At     place
	ID     text `key:"id"`
	Prefix text `key:"pathPrefix"`
	Suffix text `key:"pathSuffix"`
}

type variable struct {
	At    place
	Name  text `key:"name"`
	Value text `key:"value"`
}

type secret struct {
	At        place
	Name      text             `key:"name"`
	Value     text             `key:"value"`
	Reference *secretReference `key:"valueSecretReference"`
}

type constraints struct {
	MaxWallClockTime text `key:"maxWallClockTime"`
}

type mountVolumes struct {
	Files     []fileShare  `key:"azureFileShares"`
	Blobs     []blobs      `key:"azureBlobFileSystems" old:"azureBlobFileSystem"`
	Servers   []fileServer `key:"fileServers"`
	Unmanaged []unmanaged  `key:"unmanagedFileSystems"`
}

type credentials struct {
	At        place
	Key       text             `key:"accountKey"`
	Reference *secretReference `key:"accountKeySecretReference"`
}

type fileShare struct {
	At            place
	Account       text         `key:"accountName"`
	URL           text         `key:"azureFileUrl"`
	Path          text         `key:"relativeMountPath"`
	FileMode      text         `key:"fileMode"`
	DirectoryMode text         `key:"directoryMode"`
	Credentials   *credentials `key:"credentials" old:"credentialsInfo"`
}

type blobs struct {
	At          place
	Account     text         `key:"accountName"`
	Container   text         `key:"containerName"`
	Path        text         `key:"relativeMountPath"`
	Options     text         `key:"mountOptions"`
	Credentials *credentials `key:"credentials" old:"credentialsInfo"`
}

type fileServer struct {
	At        place
	Server    *resourceID `key:"fileServer"`
	Directory text        `key:"sourceDirectory"`
	Path      text        `key:"relativeMountPath"`
	Options   text        `key:"mountOptions"`
}

type unmanaged struct {
	At      place
	Command text `key:"mountCommand"`
	Path    text `key:"relativeMountPath"`
}

type clusterFile struct {
	Schema     ignored           `key:"$schema"`
	Location   ignored           `key:"location"`
	ID         ignored           `key:"id"`
	Name       text              `key:"name"`
	Type       ignored           `key:"type"`
	Tags       ignored           `key:"tags"`
	Properties clusterProperties `key:"properties"`
}

type clusterProperties struct {
	Size              text                  `key:"vmSize"`
	Priority          text                  `key:"vmPriority"`
	Scale             *scaleSettings        `key:"scaleSettings"`
	Machine           *machineConfiguration `key:"virtualMachineConfiguration"`
	Account           *accountSettings      `key:"userAccountSettings"`
	Subnet            *resourceID           `key:"subnet"`
	Setup             *nodeSetup            `key:"nodeSetup"`
	ProvisioningState ignored               `key:"provisioningState"`
	AllocationState   ignored               `key:"allocationState"`
	CurrentNodeCount  ignored               `key:"currentNodeCount"`
	NodeStateCounts   ignored               `key:"nodeStateCounts"`
	Errors            ignored               `key:"errors"`
	CreationTime      ignored               `key:"creationTime"`
	AllocationTime    ignored               `key:"allocationStateTransitionTime"`
	ProvisioningTime  ignored               `key:"provisioningStateTransitionTime"`
}

type scaleSettings struct {
	At     place
	Manual *manualScale `key:"manual"`
	Auto   *autoScale   `key:"autoScale"`
}

type manualScale struct {
	Target number `key:"targetNodeCount"`
	Option text   `key:"nodeDeallocationOption"`
}

type autoScale struct {
	At      place
	Min     number `key:"minimumNodeCount"`
	Max     number `key:"maximumNodeCount"`
	Initial number `key:"initialNodeCount"`
}

type machineConfiguration struct {
	Image *imageReference `key:"imageReference"`
}

type imageReference struct {
	At        place
	Publisher text `key:"publisher"`
	Offer     text `key:"offer"`
	SKU       text `key:"sku"`
	Version   text `key:"version"`
	ID        text `key:"virtualMachineImageId"`
}

type accountSettings struct {
	At       place
	Name     text `key:"adminUserName"`
	Key      text `key:"adminUserSshPublicKey"`
	Password text `key:"adminUserPassword"`
}

type nodeSetup struct {
	Task     *setupTask    `key:"setupTask"`
	Mounts   *mountVolumes `key:"mountVolumes"`
	Counters ignored       `key:"performanceCountersSettings"`
}

type setupTask struct {
	At          place
	Line        text       `key:"commandLine"`
	StdOutErr   text       `key:"stdOutErrPathPrefix"`
	Suffix      ignored    `key:"stdOutErrPathSuffix"`
	Elevated    ignored    `key:"runElevated"`
	Environment []variable `key:"environmentVariables"`
	Secrets     []secret   `key:"secrets"`
}
