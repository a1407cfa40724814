/* What differs from Dropbear's default_options.h. */
/* keys only: a password that is guessed opens nothing */
#define DROPBEAR_SVR_PASSWORD_AUTH 0
#define DROPBEAR_SVR_PAM_AUTH 0
#define DROPBEAR_CLI_PASSWORD_AUTH 0
/* there is no X server and no xauth */
#define DROPBEAR_X11FWD 0
/* there is no sftp-server */
#define DROPBEAR_SFTPSERVER 0
/* room is cheap, waiting is not */
#define DROPBEAR_SMALL_CODE 0
/* what it starts a login with, and where scp finds its partner */
#define DEFAULT_PATH "/usr/bin:/bin"
#define DEFAULT_ROOT_PATH "/usr/sbin:/usr/bin:/sbin:/bin"
#define DROPBEAR_PATH_SSH_PROGRAM "/usr/bin/dbclient"
