// Package web is Shoal in a browser: signing in, the page of what is hers, and the page that shows how far a
// machine is while it starts. All of it lies below /shoal/.
//
// Who is signed in. A cookie holds a secret that the directory keeps by its hash, like API tokens; it ends with
// logout, with the user's password, with a key that is taken from her, and when she is disabled. One signs in with
// a password, or with a link that `shoal web` prints where she is logged in already.
//
// Whose request it is. A browser shows other people's pages as well, and with one address for all the notebooks
// and apps of the user herself have our own origin. So
//
//   - a request that another site made counts as nobody's, unless the person herself followed a link to here
//     (Who, the pages), and forms and the API ask for a token besides that only our own pages hold;
//   - whatever could still be sent by a notebook of hers has a member's rights at most. What an operator or admin
//     may do is confirmed for each request by her password, or from her command line (StepUp);
//   - Shoal's cookies are not passed on to what lies behind the gateway (Strip), and what lies behind cannot set
//     them, nor stand between browser and pages (StripAnswer).
//
// Codes carry who somebody is to the hub: for a minute, once, for one address and one state.
//
// Pages are HTML that can be read and used without scripts. Scripts and styles are files of ours.
package web
