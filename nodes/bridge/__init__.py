"""The only place that touches ComfyUI's insides. Whatever another version of ComfyUI changes is changed here."""
