# In people's shells, others can't read new files, and an idle shell ends. Commands under sudo have umask 022 (sudoers.d/00-…).
umask 027
ulimit -c 0
if [ -z "$TMOUT" ]; then
    readonly TMOUT=1800
    export TMOUT
fi
