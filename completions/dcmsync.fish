# fish completion for dcmsync; generated from the option rows by `make pages`; do not edit

function __dcmsync_no_verb
    test (count (commandline -opc)) -eq 1
end

function __dcmsync_verb
    set -l words (commandline -opc)
    test (count $words) -ge 2; and test $words[2] = $argv[1]
end

function __dcmsync_endpoints
    set -l config $DCMSYNC_CONFIG
    test -n "$config"; or set config $XDG_CONFIG_HOME/dcmsync/config.toml
    test -n "$DCMSYNC_CONFIG$XDG_CONFIG_HOME"; or set config $HOME/.config/dcmsync/config.toml
    test -r $config; and sed -n 's/^\[endpoints\.\"\{0,1\}\([A-Za-z0-9_.-]*\)\"\{0,1\}\].*/\1/p' $config
    __fish_complete_directories (commandline -ct)
end

complete -c dcmsync -f
complete -c dcmsync -n __dcmsync_no_verb -s h -l help -d 'show this help'
complete -c dcmsync -n __dcmsync_no_verb -l version -d 'show the version'
complete -c dcmsync -n __dcmsync_no_verb -a help -d 'show the help of a verb'
complete -c dcmsync -n __dcmsync_no_verb -a query -d 'ask a place what it holds; writes records'
complete -c dcmsync -n '__dcmsync_verb help' -a query -d 'ask a place what it holds; writes records'
complete -c dcmsync -n __dcmsync_no_verb -a filter -d 'keep the records that match; writes the very lines it read'
complete -c dcmsync -n '__dcmsync_verb help' -a filter -d 'keep the records that match; writes the very lines it read'
complete -c dcmsync -n __dcmsync_no_verb -a pull -d 'bring what the records name into a local folder; writes outcomes'
complete -c dcmsync -n '__dcmsync_verb help' -a pull -d 'bring what the records name into a local folder; writes outcomes'
complete -c dcmsync -n __dcmsync_no_verb -a echo -d 'see whether a node answers'
complete -c dcmsync -n '__dcmsync_verb help' -a echo -d 'see whether a node answers'
complete -c dcmsync -n __dcmsync_no_verb -a serve -d 'be a small DICOM node over a folder'
complete -c dcmsync -n '__dcmsync_verb help' -a serve -d 'be a small DICOM node over a folder'
complete -c dcmsync -n __dcmsync_no_verb -a demo -d 'show query, filter and pull at work, on this machine alone'
complete -c dcmsync -n '__dcmsync_verb help' -a demo -d 'show query, filter and pull at work, on this machine alone'
complete -c dcmsync -n __dcmsync_no_verb -a schema -d 'print the JSON Schema of the records'
complete -c dcmsync -n '__dcmsync_verb help' -a schema -d 'print the JSON Schema of the records'

complete -c dcmsync -n '__dcmsync_verb query' -l level -xa 'study series instance' -d 'what to list'
complete -c dcmsync -n '__dcmsync_verb query' -l since -x -d 'studies from then on: 12h, 2d, 20240131, 2024-01-31T12:00'
complete -c dcmsync -n '__dcmsync_verb query' -l until -x -d 'studies up to then, inclusive'
complete -c dcmsync -n '__dcmsync_verb query' -l return -r -xa 'AccessionNumber= BodyPartExamined= InstanceNumber= InstitutionName= Manufacturer= ManufacturerModelName= Modality= ModalitiesInStudy= NumberOfSeriesRelatedInstances= NumberOfStudyRelatedInstances= NumberOfStudyRelatedSeries= PatientBirthDate= PatientID= PatientName= PatientSex= ProtocolName= ReferringPhysicianName= SOPClassUID= SOPInstanceUID= SeriesDate= SeriesDescription= SeriesInstanceUID= SeriesNumber= SeriesTime= StationName= StudyDate= StudyDescription= StudyID= StudyInstanceUID= StudyTime= TransferSyntaxUID=' -d 'another attribute to ask back, whatever level is asked for'
complete -c dcmsync -n '__dcmsync_verb query' -l all -d 'allow a query that nothing restricts'
complete -c dcmsync -n '__dcmsync_verb query' -l format -xa 'ndjson tree table csv uids' -d 'how to write records; default: tree on a terminal, ndjson in a pipe'
complete -c dcmsync -n '__dcmsync_verb query' -l timeout -x -d 'give up on a peer that makes no progress for this long (30, 90s, 2m); default 60'
complete -c dcmsync -n '__dcmsync_verb query' -l calling -x -d 'our own AE title; default DCMSYNC'
complete -c dcmsync -n '__dcmsync_verb query' -l require-end -d 'treat a stream of records without its end record as incomplete'
complete -c dcmsync -n '__dcmsync_verb query' -l config -r -F -d 'read the configuration from FILE (also DCMSYNC_CONFIG)'
complete -c dcmsync -n '__dcmsync_verb query' -s q -l quiet -d 'say nothing but errors on stderr'
complete -c dcmsync -n '__dcmsync_verb query' -s v -l verbose -d 'say more on stderr'
complete -c dcmsync -n '__dcmsync_verb query' -l log-format -xa 'text json' -d 'messages on stderr as text or as JSON, one object a line'
complete -c dcmsync -n '__dcmsync_verb query' -s h -l help -d 'show this help'
complete -c dcmsync -n '__dcmsync_verb query' -a '(__dcmsync_endpoints)'
complete -c dcmsync -n '__dcmsync_verb query' -a 'AccessionNumber= BodyPartExamined= InstanceNumber= InstitutionName= Manufacturer= ManufacturerModelName= Modality= ModalitiesInStudy= NumberOfSeriesRelatedInstances= NumberOfStudyRelatedInstances= NumberOfStudyRelatedSeries= PatientBirthDate= PatientID= PatientName= PatientSex= ProtocolName= ReferringPhysicianName= SOPClassUID= SOPInstanceUID= SeriesDate= SeriesDescription= SeriesInstanceUID= SeriesNumber= SeriesTime= StationName= StudyDate= StudyDescription= StudyID= StudyInstanceUID= StudyTime= TransferSyntaxUID='

complete -c dcmsync -n '__dcmsync_verb filter' -l any -d 'keep records that any EXPR is true of, not all'
complete -c dcmsync -n '__dcmsync_verb filter' -l not -d 'keep the records that would be dropped by EXPR, and drop the others'
complete -c dcmsync -n '__dcmsync_verb filter' -l smallest -x -d 'of what matches, the N with fewest instances'
complete -c dcmsync -n '__dcmsync_verb filter' -l largest -x -d 'of what matches, the N with most instances'
complete -c dcmsync -n '__dcmsync_verb filter' -l newest -x -d 'of what matches, the N latest by date and time'
complete -c dcmsync -n '__dcmsync_verb filter' -l per -xa 'patient study' -d 'N of each patient or study, with --smallest, --largest and --newest'
complete -c dcmsync -n '__dcmsync_verb filter' -l max-images -x -d 'drop what has more than N instances'
complete -c dcmsync -n '__dcmsync_verb filter' -l since -x -d 'studies from then on: 12h, 2d, 20240131, 2024-01-31T12:00'
complete -c dcmsync -n '__dcmsync_verb filter' -l until -x -d 'studies up to then, inclusive'
complete -c dcmsync -n '__dcmsync_verb filter' -l shard -x -d 'part K of N, split by a hash of StudyInstanceUID'
complete -c dcmsync -n '__dcmsync_verb filter' -l sample -x -d 'N records, or P percent; the same ones every time, chosen by a hash of their UID'
complete -c dcmsync -n '__dcmsync_verb filter' -l explain -d 'say on stderr which line was dropped by what; with -v, also its value'
complete -c dcmsync -n '__dcmsync_verb filter' -l require-end -d 'treat a stream of records without its end record as incomplete'
complete -c dcmsync -n '__dcmsync_verb filter' -l config -r -F -d 'read the configuration from FILE (also DCMSYNC_CONFIG)'
complete -c dcmsync -n '__dcmsync_verb filter' -s q -l quiet -d 'say nothing but errors on stderr'
complete -c dcmsync -n '__dcmsync_verb filter' -s v -l verbose -d 'say more on stderr'
complete -c dcmsync -n '__dcmsync_verb filter' -l log-format -xa 'text json' -d 'messages on stderr as text or as JSON, one object a line'
complete -c dcmsync -n '__dcmsync_verb filter' -s h -l help -d 'show this help'
complete -c dcmsync -n '__dcmsync_verb filter' -a 'AccessionNumber= BodyPartExamined= InstanceNumber= InstitutionName= Manufacturer= ManufacturerModelName= Modality= ModalitiesInStudy= NumberOfSeriesRelatedInstances= NumberOfStudyRelatedInstances= NumberOfStudyRelatedSeries= PatientBirthDate= PatientID= PatientName= PatientSex= ProtocolName= ReferringPhysicianName= SOPClassUID= SOPInstanceUID= SeriesDate= SeriesDescription= SeriesInstanceUID= SeriesNumber= SeriesTime= StationName= StudyDate= StudyDescription= StudyID= StudyInstanceUID= StudyTime= TransferSyntaxUID='

complete -c dcmsync -n '__dcmsync_verb pull' -l layout -x -d 'where an instance goes below DIR; default {PatientID}/{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm'
complete -c dcmsync -n '__dcmsync_verb pull' -l itemize -s i -d 'one outcome for each instance, not only for those that are not fine'
complete -c dcmsync -n '__dcmsync_verb pull' -l force -s f -d 'fetch what is there already, and replace what differs'
complete -c dcmsync -n '__dcmsync_verb pull' -s n -l dry-run -d 'write the same records as the real run would, and touch nothing'
complete -c dcmsync -n '__dcmsync_verb pull' -l jobs -s j -x -d 'series to retrieve at a time; default 4'
complete -c dcmsync -n '__dcmsync_verb pull' -l format -xa 'ndjson tree table csv uids' -d 'how to write records; default: tree on a terminal, ndjson in a pipe'
complete -c dcmsync -n '__dcmsync_verb pull' -l timeout -x -d 'give up on a peer that makes no progress for this long (30, 90s, 2m); default 60'
complete -c dcmsync -n '__dcmsync_verb pull' -l calling -x -d 'our own AE title; default DCMSYNC'
complete -c dcmsync -n '__dcmsync_verb pull' -l require-end -d 'treat a stream of records without its end record as incomplete'
complete -c dcmsync -n '__dcmsync_verb pull' -l config -r -F -d 'read the configuration from FILE (also DCMSYNC_CONFIG)'
complete -c dcmsync -n '__dcmsync_verb pull' -s q -l quiet -d 'say nothing but errors on stderr'
complete -c dcmsync -n '__dcmsync_verb pull' -s v -l verbose -d 'say more on stderr'
complete -c dcmsync -n '__dcmsync_verb pull' -l log-format -xa 'text json' -d 'messages on stderr as text or as JSON, one object a line'
complete -c dcmsync -n '__dcmsync_verb pull' -s h -l help -d 'show this help'
complete -c dcmsync -n '__dcmsync_verb pull' -a '(__fish_complete_directories (commandline -ct))'

complete -c dcmsync -n '__dcmsync_verb echo' -l timeout -x -d 'give up on a peer that makes no progress for this long (30, 90s, 2m); default 60'
complete -c dcmsync -n '__dcmsync_verb echo' -l calling -x -d 'our own AE title; default DCMSYNC'
complete -c dcmsync -n '__dcmsync_verb echo' -l config -r -F -d 'read the configuration from FILE (also DCMSYNC_CONFIG)'
complete -c dcmsync -n '__dcmsync_verb echo' -s q -l quiet -d 'say nothing but errors on stderr'
complete -c dcmsync -n '__dcmsync_verb echo' -s v -l verbose -d 'say more on stderr'
complete -c dcmsync -n '__dcmsync_verb echo' -l log-format -xa 'text json' -d 'messages on stderr as text or as JSON, one object a line'
complete -c dcmsync -n '__dcmsync_verb echo' -s h -l help -d 'show this help'
complete -c dcmsync -n '__dcmsync_verb echo' -a '(__dcmsync_endpoints)'

complete -c dcmsync -n '__dcmsync_verb serve' -l ae -x -d 'our AE title, by which peers must call us; default DCMSYNC'
complete -c dcmsync -n '__dcmsync_verb serve' -l port -x -d 'the TCP port, 0 for any free one; default 11112'
complete -c dcmsync -n '__dcmsync_verb serve' -l bind -x -d 'the address to listen on; default 127.0.0.1, this machine alone'
complete -c dcmsync -n '__dcmsync_verb serve' -l allow -x -d 'a calling AE title that may connect; default all, on this machine alone'
complete -c dcmsync -n '__dcmsync_verb serve' -l allow-any -d 'let anyone connect, from other machines as well'
complete -c dcmsync -n '__dcmsync_verb serve' -l max-associations -x -d 'associations at a time; default 32'
complete -c dcmsync -n '__dcmsync_verb serve' -l timeout -x -d 'give up on a peer that makes no progress for this long (30, 90s, 2m); default 60'
complete -c dcmsync -n '__dcmsync_verb serve' -l config -r -F -d 'read the configuration from FILE (also DCMSYNC_CONFIG)'
complete -c dcmsync -n '__dcmsync_verb serve' -s q -l quiet -d 'say nothing but errors on stderr'
complete -c dcmsync -n '__dcmsync_verb serve' -s v -l verbose -d 'say more on stderr'
complete -c dcmsync -n '__dcmsync_verb serve' -l log-format -xa 'text json' -d 'messages on stderr as text or as JSON, one object a line'
complete -c dcmsync -n '__dcmsync_verb serve' -s h -l help -d 'show this help'
complete -c dcmsync -n '__dcmsync_verb serve' -a '(__fish_complete_directories (commandline -ct))'

complete -c dcmsync -n '__dcmsync_verb demo' -l keep -r -xa '(__fish_complete_directories (commandline -ct))' -d 'work in DIR, which must be new or empty, and leave everything there'
complete -c dcmsync -n '__dcmsync_verb demo' -l config -r -F -d 'read the configuration from FILE (also DCMSYNC_CONFIG)'
complete -c dcmsync -n '__dcmsync_verb demo' -s q -l quiet -d 'say nothing but errors on stderr'
complete -c dcmsync -n '__dcmsync_verb demo' -s v -l verbose -d 'say more on stderr'
complete -c dcmsync -n '__dcmsync_verb demo' -l log-format -xa 'text json' -d 'messages on stderr as text or as JSON, one object a line'
complete -c dcmsync -n '__dcmsync_verb demo' -s h -l help -d 'show this help'

complete -c dcmsync -n '__dcmsync_verb schema' -l config -r -F -d 'read the configuration from FILE (also DCMSYNC_CONFIG)'
complete -c dcmsync -n '__dcmsync_verb schema' -s q -l quiet -d 'say nothing but errors on stderr'
complete -c dcmsync -n '__dcmsync_verb schema' -s v -l verbose -d 'say more on stderr'
complete -c dcmsync -n '__dcmsync_verb schema' -l log-format -xa 'text json' -d 'messages on stderr as text or as JSON, one object a line'
complete -c dcmsync -n '__dcmsync_verb schema' -s h -l help -d 'show this help'
