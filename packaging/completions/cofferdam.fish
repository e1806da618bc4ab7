# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_cofferdam_global_optspecs
    string join \n root= log= log-format= debug systemd-cgroup rootless= criu= v/version h/help
end

function __fish_cofferdam_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_cofferdam_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_cofferdam_using_subcommand
    set -l cmd (__fish_cofferdam_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c cofferdam -n "__fish_cofferdam_needs_command" -l root -d 'Directory for the state of containers (should be on a tmpfs)' -r -F
complete -c cofferdam -n "__fish_cofferdam_needs_command" -l log -d 'File that errors are written to beside stderr' -r -F
complete -c cofferdam -n "__fish_cofferdam_needs_command" -l log-format -d 'Format of that file' -r -f -a "text\t''
json\t''"
complete -c cofferdam -n "__fish_cofferdam_needs_command" -l rootless -d 'Taken for compatibility: the guest\'s control groups are always ours' -r -f -a "true\t''
false\t''
auto\t''"
complete -c cofferdam -n "__fish_cofferdam_needs_command" -l criu -d 'Taken for compatibility: nothing is checkpointed' -r -F
complete -c cofferdam -n "__fish_cofferdam_needs_command" -l debug -d 'Log more'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -l systemd-cgroup -d 'Taken for compatibility: limits are set inside the guest, where no systemd runs'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -s v -s V -l version -d 'Print version'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "create" -d 'Create a container of a bundle; `start` runs its process'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "start" -d 'Run the process of a created container'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "run" -d 'Create and start a container, of an image or of a bundle'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "state" -d 'Print a container\'s state as JSON'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "kill" -d 'Signal a container\'s first process'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "delete" -d 'Remove a container and all that is left of it'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "exec" -d 'Run one more process in a container'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "list" -d 'List containers'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "ps" -d 'List the containers that `run` made of images, or the processes of one container'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "logs" -d 'Print what a container has written'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "stop" -d 'Ask containers to stop, then make them'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "rm" -d 'Remove containers'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "images" -d 'List images'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "rmi" -d 'Remove images'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "pull" -d 'Fetch an image from its registry'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "load" -d 'Take the images of an archive or an OCI layout'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "template" -d 'Make, list and remove templates of booted guests'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "check" -d 'Say whether containers can run here, and what is missing'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "debug" -d 'Look into how machines work here'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "pause" -d 'Freeze a container'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "resume" -d 'Thaw a container'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "update" -d 'Change a container\'s limits'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "events" -d 'Print a container\'s use of resources'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "spec" -d 'Write a sample config.json'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "features" -d 'Print what this runtime can do, as JSON'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "generate-docs" -d 'Write the command line reference, manual pages and completions into a folder'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "checkpoint" -d 'Not supported'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "restore" -d 'Not supported'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "network" -d 'Connects containers of `run` to their network'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "driver" -d 'The background process that owns a sandbox'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "proxy" -d 'What stands for a container\'s process on the host'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "template-maker" -d 'Makes a template beside a new container'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "victim" -d 'Is killed for want of memory'
complete -c cofferdam -n "__fish_cofferdam_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand create" -s b -l bundle -d 'Folder of the bundle; the current one by default' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand create" -l console-socket -d 'Socket that gets the master of the container\'s terminal' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand create" -l pid-file -d 'File that gets the pid that stands for the container\'s process' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand create" -l preserve-fds -d 'Number of further descriptors to pass; descriptors end at the virtual machine\'s wall, so only 0 works' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand create" -l no-pivot -d 'Taken for compatibility: the guest\'s root always can be pivoted'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand create" -l no-new-keyring -d 'Taken for compatibility: the guest\'s kernel has its own session keys'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand create" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand start" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l name -d 'Name of the container; 64 random digits by default' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -s e -l env -d 'Set an environment variable; without a value, as it is here' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -s v -l volume -d 'Show a folder or file in the container. A folder that does not exist is made' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -s w -l workdir -d 'Working directory in the container' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -s u -l user -d 'User and group, by name or number, as the image knows them' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -s m -l memory -d 'Memory limit, in bytes or with b, k, m or g' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l cpus -d 'CPU limit, e.g. 1.5' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l hostname -d 'Host name in the container' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l net -l network -d 'Network: `none` (loopback alone, the default), `bridge`, `ns:PATH` (the interfaces of a network namespace) or `cni:NAME`' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -s p -l publish -d 'Lead a port of the host to one of the container; means `--net bridge` unless another is given' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l pull -d 'When to ask the image\'s registry; when it is missing here, by default' -r -f -a "missing\t'When the image is not here'
always\t'Each time'
never\t'Not at all'"
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l entrypoint -d 'Run this instead of the image\'s entrypoint; `""`: none' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l rootfs -d 'Use this folder as root file system instead of an image\'s' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -s b -l bundle -d 'Folder of the bundle; the current one by default' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l console-socket -d 'Socket that gets the master of the container\'s terminal' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l pid-file -d 'File that gets the pid that stands for the container\'s process' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l preserve-fds -d 'Number of further descriptors to pass; descriptors end at the virtual machine\'s wall, so only 0 works' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -s d -l detach -d 'Do not wait for the container\'s end; print its name'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -s i -l interactive -d 'Pass stdin on; without it the container\'s is empty'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -s t -l tty -d 'Give it a terminal'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l rm -d 'Remove the container when it has ended'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l read-only -d 'Make the root file system read-only'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l no-pivot -d 'Taken for compatibility: the guest\'s root always can be pivoted'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l no-new-keyring -d 'Taken for compatibility: the guest\'s kernel has its own session keys'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l keep -d 'Do not delete the container of a bundle when it has ended'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -l no-subreaper -d 'Taken for compatibility'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand state" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand kill" -s a -l all -d 'Signal every process of the container'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand kill" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand delete" -s f -l force -d 'Kill it first if it has not stopped; do not mind if it is not there'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand delete" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -l console-socket -d 'Socket that gets the master of the process\'s terminal' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -s w -l cwd -l workdir -d 'Working directory in the container' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -s e -l env -d 'Set an environment variable' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -s u -l user -d 'User and group, by number or by name as the container knows them' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -s g -l additional-gids -d 'Supplementary group ids' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -s p -l process -d 'File with a runtime-spec process object' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -l pid-file -d 'File that gets the pid that stands for the process' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -l process-label -d 'SELinux label' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -l apparmor -d 'AppArmor profile' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -s c -l cap -d 'Add a capability' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -l preserve-fds -d 'Only 0 works: descriptors end at the virtual machine\'s wall' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -l cgroup -d 'Refused: processes run in the container\'s own cgroup' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -s t -l tty -d 'Give it a terminal'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -s i -l interactive -d 'Taken for docker\'s habit: stdin is always passed'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -s d -l detach -d 'Do not wait for its end'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -l no-new-privs -d 'Forbid it to gain privileges'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -l ignore-paused -d 'Refused: a paused container runs nothing'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand exec" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand list" -s f -l format -d '`table` or `json`' -r -f -a "table\t''
json\t''"
complete -c cofferdam -n "__fish_cofferdam_using_subcommand list" -s q -l quiet -d 'Names only'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand list" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand ps" -s f -l format -d '`table` or `json`' -r -f -a "table\t''
json\t''"
complete -c cofferdam -n "__fish_cofferdam_using_subcommand ps" -s a -l all -d 'Containers that have ended, too'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand ps" -s q -l quiet -d 'Names only'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand ps" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand logs" -s n -l tail -d 'Only the last lines' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand logs" -s f -l follow -d 'Wait for more until the container has ended'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand logs" -s t -l timestamps -d 'Say when each line was written'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand logs" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand stop" -s t -l time -d 'Seconds between the image\'s stop signal and SIGKILL' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand stop" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand rm" -s f -l force -d 'Kill those that run'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand rm" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand images" -l format -d '`table` or `json`' -r -f -a "table\t''
json\t''"
complete -c cofferdam -n "__fish_cofferdam_using_subcommand images" -s q -l quiet -d 'Ids only'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand images" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand rmi" -s f -l force -d 'Also images that containers use'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand rmi" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand pull" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand load" -s i -l input -d 'The archive, or a folder in OCI layout' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand load" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template; and not __fish_seen_subcommand_from make ls rm help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template; and not __fish_seen_subcommand_from make ls rm help" -f -a "make" -d 'Make a template unless it is there'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template; and not __fish_seen_subcommand_from make ls rm help" -f -a "ls" -d 'List templates'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template; and not __fish_seen_subcommand_from make ls rm help" -f -a "rm" -d 'Remove all templates. Sandboxes that run do not need theirs any more'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template; and not __fish_seen_subcommand_from make ls rm help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template; and __fish_seen_subcommand_from make" -l memory -d 'Guest memory in MiB: that of a sandbox, which is its limit and `memory_overhead_mib`' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template; and __fish_seen_subcommand_from make" -l vcpus -d 'Virtual CPUs' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template; and __fish_seen_subcommand_from make" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template; and __fish_seen_subcommand_from ls" -s f -l format -d '`table` or `json`' -r -f -a "table\t''
json\t''"
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template; and __fish_seen_subcommand_from help" -f -a "make" -d 'Make a template unless it is there'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template; and __fish_seen_subcommand_from help" -f -a "ls" -d 'List templates'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template; and __fish_seen_subcommand_from help" -f -a "rm" -d 'Remove all templates. Sandboxes that run do not need theirs any more'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand check" -l json -d 'As JSON'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand check" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand debug; and not __fish_seen_subcommand_from boot-time counters help" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand debug; and not __fish_seen_subcommand_from boot-time counters help" -f -a "boot-time" -d 'Boot a machine and say where the time goes'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand debug; and not __fish_seen_subcommand_from boot-time counters help" -f -a "counters" -d 'Print what the processors and devices of a container\'s machine have done'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand debug; and not __fish_seen_subcommand_from boot-time counters help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand debug; and __fish_seen_subcommand_from boot-time" -s m -l memory -d 'Memory limit of the container that it would be for, in bytes or with b, k, m or g' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand debug; and __fish_seen_subcommand_from boot-time" -l cpus -d 'CPU limit of that container, e.g. 1.5' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand debug; and __fish_seen_subcommand_from boot-time" -l rounds -d 'How often to boot, one machine after the other' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand debug; and __fish_seen_subcommand_from boot-time" -l json -d 'As JSON, with every round'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand debug; and __fish_seen_subcommand_from boot-time" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand debug; and __fish_seen_subcommand_from counters" -l json -d 'As JSON, zeros included'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand debug; and __fish_seen_subcommand_from counters" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand debug; and __fish_seen_subcommand_from help" -f -a "boot-time" -d 'Boot a machine and say where the time goes'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand debug; and __fish_seen_subcommand_from help" -f -a "counters" -d 'Print what the processors and devices of a container\'s machine have done'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand debug; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand pause" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand resume" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -s r -l resources -d 'File with a runtime-spec resources object; `-`: stdin. The other options do not count then' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -l blkio-weight -d 'Weight for block devices, 10 to 1000' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -l cpu-period -d 'CPU period in microseconds' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -l cpu-quota -d 'CPU time per period in microseconds' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -l cpu-rt-period -d 'Refused: the guest has cgroup v2, which shares out no real time' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -l cpu-rt-runtime -d 'Refused, as --cpu-rt-period' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -l l3-cache-schema -d 'Refused: cache classes belong to the host\'s kernel' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -l mem-bw-schema -d 'Refused, as --l3-cache-schema' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -l cpu-share -l cpu-shares -d 'Relative weight for CPU time' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -l cpuset-cpus -d 'CPUs to use' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -l cpuset-mems -d 'Memory nodes to use' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -l memory -d 'Memory limit, in bytes or with b, k, m or g; -1: none' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -l memory-reservation -d 'Soft memory limit' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -l memory-swap -d 'Limit of memory and swap together; -1: none' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -l pids-limit -d 'Most processes; -1: no limit' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand update" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand events" -l interval -d 'Seconds between two prints' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand events" -l stats -d 'Print once and end'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand events" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand spec" -s b -l bundle -d 'Folder to write config.json to; the current one by default' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand spec" -l rootless -d 'Refused: the runtime runs as root'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand spec" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand features" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand generate-docs" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand checkpoint" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand restore" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand network" -l net -d '`bridge` or `cni:NAME`' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand network" -l publish -d 'Ports of the host' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand network" -l state -d 'The container\'s state directory' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand network" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand driver" -l log -d 'File to log to' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand driver" -l log-format -d 'Format of that file' -r -f -a "text\t''
json\t''"
complete -c cofferdam -n "__fish_cofferdam_using_subcommand driver" -l id -d 'Shown in process lists' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand driver" -l remove-from -d 'State directory: the container is removed from there when it has ended' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand driver" -l rootfs -d 'Root file system on the host, which becomes the proxy\'s own' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand driver" -l debug -d 'Log more'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand driver" -l terminal -d 'stdout is a terminal whose size counts'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand driver" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand proxy" -l log -d 'File to log to' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand proxy" -l log-format -d 'Format of that file' -r -f -a "text\t''
json\t''"
complete -c cofferdam -n "__fish_cofferdam_using_subcommand proxy" -l id -d 'Shown in process lists' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand proxy" -l remove-from -d 'State directory: the container is removed from there when it has ended' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand proxy" -l rootfs -d 'Root file system on the host, which becomes the proxy\'s own' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand proxy" -l debug -d 'Log more'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand proxy" -l terminal -d 'stdout is a terminal whose size counts'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand proxy" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template-maker" -l log -d 'File to log to' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template-maker" -l log-format -d 'Format of that file' -r -f -a "text\t''
json\t''"
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template-maker" -l id -d 'Shown in process lists' -r
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template-maker" -l remove-from -d 'State directory: the container is removed from there when it has ended' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template-maker" -l rootfs -d 'Root file system on the host, which becomes the proxy\'s own' -r -F
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template-maker" -l debug -d 'Log more'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template-maker" -l terminal -d 'stdout is a terminal whose size counts'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand template-maker" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand victim" -s h -l help -d 'Print help'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "create" -d 'Create a container of a bundle; `start` runs its process'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "start" -d 'Run the process of a created container'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "run" -d 'Create and start a container, of an image or of a bundle'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "state" -d 'Print a container\'s state as JSON'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "kill" -d 'Signal a container\'s first process'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "delete" -d 'Remove a container and all that is left of it'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "exec" -d 'Run one more process in a container'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "list" -d 'List containers'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "ps" -d 'List the containers that `run` made of images, or the processes of one container'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "logs" -d 'Print what a container has written'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "stop" -d 'Ask containers to stop, then make them'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "rm" -d 'Remove containers'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "images" -d 'List images'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "rmi" -d 'Remove images'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "pull" -d 'Fetch an image from its registry'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "load" -d 'Take the images of an archive or an OCI layout'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "template" -d 'Make, list and remove templates of booted guests'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "check" -d 'Say whether containers can run here, and what is missing'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "debug" -d 'Look into how machines work here'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "pause" -d 'Freeze a container'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "resume" -d 'Thaw a container'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "update" -d 'Change a container\'s limits'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "events" -d 'Print a container\'s use of resources'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "spec" -d 'Write a sample config.json'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "features" -d 'Print what this runtime can do, as JSON'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "generate-docs" -d 'Write the command line reference, manual pages and completions into a folder'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "checkpoint" -d 'Not supported'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "restore" -d 'Not supported'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "network" -d 'Connects containers of `run` to their network'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "driver" -d 'The background process that owns a sandbox'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "proxy" -d 'What stands for a container\'s process on the host'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "template-maker" -d 'Makes a template beside a new container'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "victim" -d 'Is killed for want of memory'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and not __fish_seen_subcommand_from create start run state kill delete exec list ps logs stop rm images rmi pull load template check debug pause resume update events spec features generate-docs checkpoint restore network driver proxy template-maker victim help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and __fish_seen_subcommand_from template" -f -a "make" -d 'Make a template unless it is there'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and __fish_seen_subcommand_from template" -f -a "ls" -d 'List templates'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and __fish_seen_subcommand_from template" -f -a "rm" -d 'Remove all templates. Sandboxes that run do not need theirs any more'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and __fish_seen_subcommand_from debug" -f -a "boot-time" -d 'Boot a machine and say where the time goes'
complete -c cofferdam -n "__fish_cofferdam_using_subcommand help; and __fish_seen_subcommand_from debug" -f -a "counters" -d 'Print what the processors and devices of a container\'s machine have done'
