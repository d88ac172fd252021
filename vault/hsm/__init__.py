"""Hardware security modules: one provider interface, one provider for anything that speaks PKCS#11."""
